package build

// A toolset is a module under hack/ whose commands are built together.
type toolset struct {
	name     string            // also the folder under hack/
	module   string            // the module whose version names the cache folder
	ldflags  string            // VERSION is replaced by that version
	gcflags  []string          // compiler flags by pattern of packages; the last match applies
	packages map[string]string // executable -> package
	named    map[string]string // executables that are built only on request, by name
	notice   string            // printed before a build
	fixes    []fix
}

// A fix replaces text in one source file of the toolset's module. It changes only the copy that is
// compiled.
type fix struct {
	file, old, new string
}

func kubeTools() toolset {
	return toolset{
		name:    "kube",
		module:  "k8s.io/kubernetes",
		ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=VERSION",
		// Without inlining, and without the debug information that -w drops anyway, Kubernetes
		// compiles in little more than half the time. The packages that an API server spends its
		// time in keep inlining.
		gcflags: []string{
			"k8s.io/...=-dwarf=false -l", "k8s.io/apimachinery/...=-dwarf=false", "k8s.io/apiserver/...=-dwarf=false",
		},
		packages: map[string]string{
			"etcd":             "go.etcd.io/etcd/server/v3",
			"kube-apiserver":   "k8s.io/kubernetes/cmd/kube-apiserver",
			"kube-controllers": "./controllers",
			"kubectl":          "k8s.io/kubernetes/cmd/kubectl",
		},
		named: map[string]string{
			"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
			"kube-proxy":              "k8s.io/kubernetes/cmd/kube-proxy",
			"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
			"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
		},
		notice: "The first build compiles Kubernetes from source: allow 4 to 7 minutes on two cores. Later runs " +
			"reuse it.",
	}
}

func notaryTools() toolset {
	return toolset{
		name:    "notary",
		module:  "github.com/theupdateframework/notary",
		ldflags: "-s -w",
		packages: map[string]string{
			"notary":        "github.com/theupdateframework/notary/cmd/notary",
			"notary-server": "github.com/theupdateframework/notary/cmd/notary-server",
			"notary-signer": "github.com/theupdateframework/notary/cmd/notary-signer",
		},
		notice: "The first build takes about half a minute.",
		fixes: []fix{{
			// The server reads a delegation's name, "targets/ci", from the file name of an upload.
			// Since Go 1.17 FileName returns only the last element of a path, so the fix reads the
			// header instead.
			file: "server/handlers/default.go",
			old:  `part.FileName()`,
			new:  `strings.Trim(strings.SplitN(part.Header.Get("Content-Disposition")+"; filename=", "; filename=", 3)[1], "\"")`,
		}},
	}
}

func distributionTools() toolset {
	return toolset{
		name:     "distribution",
		module:   "github.com/distribution/distribution/v3",
		ldflags:  "-s -w",
		packages: map[string]string{"registry": "github.com/distribution/distribution/v3/cmd/registry"},
		notice:   "The first build takes about two minutes.",
	}
}

func notationTools() toolset {
	return toolset{
		name:     "notation",
		module:   "github.com/notaryproject/notation",
		ldflags:  "-s -w",
		packages: map[string]string{"notation": "github.com/notaryproject/notation/cmd/notation"},
	}
}

func cosignTools() toolset {
	return toolset{
		name:     "cosign",
		module:   "github.com/sigstore/cosign/v3",
		ldflags:  "-s -w",
		packages: map[string]string{"cosign": "github.com/sigstore/cosign/v3/cmd/cosign"},
		notice:   "The first build takes two to four minutes.",
	}
}

func helmTools() toolset {
	return toolset{
		name:   "helm",
		module: "helm.sh/helm/v3",
		// "helm template" contacts no cluster. It assumes the Kubernetes version that is linked in
		// here; without these flags it assumes 1.20.
		ldflags: "-s -w -X helm.sh/helm/v3/internal/version.version=VERSION " +
			"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37 " +
			"-X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37",
		gcflags:  []string{"k8s.io/...=-dwarf=false -l"},
		packages: map[string]string{"helm": "helm.sh/helm/v3/cmd/helm"},
		notice:   "The first build takes one to two minutes.",
	}
}
