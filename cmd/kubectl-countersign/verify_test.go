package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/preview"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// runProcess runs the command as a process of its own, without a cluster.
func runProcess(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	c.Env = append(os.Environ(), runMain+"=1", "KUBECONFIG="+filepath.Join(t.TempDir(), "none"), "HOME="+t.TempDir())
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String(), errs.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, out.String(), errs.String()
}

// Verify needs no cluster: with policies in files it answers about images that were signed in each
// format.
func TestVerifyWithoutACluster(t *testing.T) {
	t.Parallel()
	formats := []string{signers.Notary, signers.Sigstore, signers.Notation, signers.TUF}
	b := newBed(t, formats...)
	folder := t.TempDir()
	for _, format := range formats {
		writeObjects(t, folder, format+".yaml", b.root(format), imagePolicy(rootName(format), v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern(b.registry.Host + "/acme/" + format)},
			TrustRoots:    []v1alpha1.ObjectName{v1alpha1.ObjectName(rootName(format))},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
		}))
	}
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			signed, half := b.images[format][both], b.images[format][onlyCI]
			code, out, errs := runProcess(t, "", "verify", "--policies", folder, signed.Tagged())
			if want := "admitted         " + signed.Tagged(); code != exitDone || !strings.Contains(out, want) ||
				!strings.Contains(out, signed.Digest) {
				t.Errorf("got code %d, %s%s; want 0, %q and the digest", code, out, errs, want)
			}
			code, out, errs = runProcess(t, "", "verify", "--policies", folder, half.Tagged(), signed.Tagged())
			if want := `role "qa" has not signed`; code != exitDenied || !strings.Contains(out, want) ||
				!strings.Contains(out, "1 admitted, 1 denied, 0 could not be checked") {
				t.Errorf("got code %d, %s%s; want 1 and %q", code, out, errs, want)
			}
		})
	}
	t.Run("a server that is gone", func(t *testing.T) {
		gone := b.root(signers.Notary)
		gone.Spec.Notary.Server = "https://localhost:1"
		folder := t.TempDir()
		writeObjects(t, folder, "p.yaml", gone, b.anyPolicy())
		code, out, _ := runProcess(t, "", "verify", "--policies", folder, b.images[signers.Notary][both].Tagged())
		if want := "the connection was refused; is the server running"; code != exitCouldNotCheck ||
			!strings.Contains(out, want) {
			t.Errorf("got code %d and %s, want 2 and %q", code, out, want)
		}
	})
	t.Run("a private CA that is missing", func(t *testing.T) {
		other := b.root(signers.Notary)
		other.Spec.Notary.CABundle = ""
		folder := t.TempDir()
		writeObjects(t, folder, "p.yaml", other, b.anyPolicy())
		code, out, _ := runProcess(t, "", "verify", "--policies", folder, b.images[signers.Notary][both].Tagged())
		if want := "caBundle"; code != exitCouldNotCheck || !strings.Contains(out, want) {
			t.Errorf("got code %d and %s, want 2 and %q", code, out, want)
		}
	})
	t.Run("an image that does not exist", func(t *testing.T) {
		code, out, _ := runProcess(t, "", "verify", "--policies", folder, b.registry.Host+"/acme/sigstore:gone")
		if code == exitDone || !strings.Contains(out, "acme/sigstore:gone") {
			t.Errorf("got code %d and %s, want a denial", code, out)
		}
	})
}

// anyPolicy returns a policy of every image of the registry.
func (b *bed) anyPolicy() *v1alpha1.ImagePolicy {
	return imagePolicy("all", v1alpha1.ImagePolicySpec{
		Images:     []v1alpha1.ImagePattern{v1alpha1.ImagePattern(b.registry.Host + "/**")},
		TrustRoots: []v1alpha1.ObjectName{"notary"}, RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
	})
}

// pod is a Pod with an image that no policy covers.
const pod = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: web, image: registry.example.com/acme/web:v1}
`

// gone is a policy whose TrustRoot does not exist.
const gone = `apiVersion: countersign.dev/v1alpha1
kind: ImagePolicy
metadata: {name: production}
spec:
  images: ["registry.example.com/acme/**"]
  namespaceSelector: {matchLabels: {env: production}}
  trustRoots: [acme]
  requiredRoles: [{role: ci}]
`

// Each bad input has one line that says what to do, and its exit code.
func TestVerifyBadInput(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	policies, manifest := write("policies.yaml", gone), write("pod.yaml", pod)
	tests := map[string]struct {
		args []string
		code int
		want string // on stderr for code 3, else on stdout
	}{
		"no cluster": {
			[]string{"verify", "nginx"}, exitError,
			"no cluster is configured: set --kubeconfig, or check by files alone with --policies",
		},
		"wrong context": {
			[]string{"verify", "nginx", "--context", "nope", "--kubeconfig", write("kubeconfig",
				"apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: https://localhost:1}}]\n")},
			exitError, `context "nope" does not exist`,
		},
		"a cluster that does not answer": {
			[]string{"verify", "nginx", "--server", "https://localhost:1"}, exitError,
			"the API server https://localhost:1 could not be used: check the kubeconfig and --context",
		},
		"nothing to verify": {[]string{"verify"}, exitError, "name an image, or manifests with -f"},
		"both":              {[]string{"verify", "nginx", "-f", manifest}, exitError, "name images or -f, not both"},
		"bad labels": {
			[]string{"verify", "nginx", "--policies", policies, "--namespace-labels", "env"}, exitError,
			"--namespace-labels: ",
		},
		"a policy that fails validation": {
			[]string{
				"verify", "nginx", "--policies",
				write("bad.yaml", strings.Replace(gone, "trustRoots: [acme]", "trustRoot: acme", 1)),
			},
			exitError, "trustRoot",
		},
		"no such folder": {[]string{"verify", "nginx", "--policies", folder + "/none"}, exitError, "none"},
		"templates": {
			[]string{"verify", "--policies", policies, "-f", write("chart.yaml", strings.Replace(pod, "registry.example.com/acme/web:v1", `"{{ .Values.image }}"`, 1))},
			exitError, "render it first",
		},
		"no policy": {
			[]string{"verify", "nginx", "--policies", manifest}, exitError, "no ImagePolicy is in " + manifest,
		},
		"no workload": {[]string{"verify", "--policies", policies, "-f", policies}, exitError, "no workload is in"},
		"bad short names": {
			[]string{"verify", "nginx", "--policies", policies, "--short-names", "x"}, exitError,
			"--short-names=x: must be",
		},
		"labels that are not known": {
			[]string{"verify", "registry.example.com/acme/web:v1", "--policies", policies}, exitCouldNotCheck,
			`the labels of namespace "default" are not known, and ImagePolicy "production" selects namespaces by them: set them with --namespace-labels`,
		},
		"a TrustRoot that is missing": {
			[]string{"verify", "-f", manifest, "--policies", policies, "--namespace-labels", "env=production"},
			exitCouldNotCheck, `TrustRoot "acme" does not exist`,
		},
		"no labels": {
			[]string{"verify", "-f", manifest, "--policies", policies, "--namespace-labels="}, exitDone,
			"no ImagePolicy covers it",
		},
		"an exempt namespace": {
			[]string{"verify", "-f", manifest, "--policies", policies, "-n", "kube-system"}, exitDone,
			`namespace "kube-system" is exempt`,
		},
		"uncovered": {
			[]string{
				"verify", "-f", manifest, "--policies", policies, "--namespace-labels=", "--uncovered-images=Deny",
			},
			exitDenied, "no ImagePolicy covers it",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errs := runProcess(t, "", tt.args...)
			text := out
			if tt.code == exitError {
				if text = errs; strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "error: ") {
					t.Errorf("got %q on stderr, want one line", errs)
				}
			}
			if code != tt.code || !strings.Contains(text, tt.want) {
				t.Errorf("got code %d, stdout %s, stderr %s; want %d and %q", code, out, errs, tt.code, tt.want)
			}
		})
	}
}

// A pipeline's stream is read from standard input, and each format of the output has the denial.
func TestVerifyOutput(t *testing.T) {
	t.Parallel()
	policies := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(policies, []byte(gone), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--policies", policies, "-f", "-", "--namespace-labels", "env=production"}
	const message = `TrustRoot "acme" does not exist`
	var report preview.Report
	streams, in, out, errs := genericiooptions.NewTestIOStreams()
	in.WriteString(pod)
	if code := run(t.Context(), append(args, "-o", "json"), streams); code != exitCouldNotCheck {
		t.Errorf("got exit code %d, %s; want 2", code, errs)
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	w := report.Workloads[0]
	if w.Kind != "Pod" || w.Name != "web" || w.Namespace != "default" || w.Verdict != preview.VerdictCouldNotCheck ||
		!strings.Contains(w.Images[0].Message, message) || w.Images[0].Policies[0].Name != "production" {
		t.Errorf("got %+v, want the Pod with %q", w, message)
	}
	streams, in, out, _ = genericiooptions.NewTestIOStreams()
	in.WriteString(pod)
	run(t.Context(), append(args, "-o", "junit"), streams)
	var junit junitSuites
	if err := xml.Unmarshal(out.Bytes(), &junit); err != nil {
		t.Fatal(err)
	}
	if junit.Tests != 1 || junit.Errors != 1 || junit.Failures != 0 || len(junit.Suites) != 1 ||
		junit.Suites[0].Name != "Pod default/web" ||
		!strings.Contains(junit.Suites[0].Cases[0].Error.Message, message) {
		t.Errorf("got %s, want one error with %q", out, message)
	}
}

// Kubectl apply adds the labels of a Namespace to those that it has. So a Namespace in the
// manifests leads out of no policy.
func TestThreatNamespaceInManifestsRemovesNoLabel(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	const namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: web, labels: {%s}}\n---\n"
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	production := fmt.Sprintf(namespace, "env: production, team: a")
	with, without := write("with.yaml", production+gone), write("without.yaml", gone)
	for name, c := range map[string]struct {
		policies, labels string // of the Namespace in the manifests
		args             []string
		code             int
	}{
		"a Namespace in the files":    {with, "", nil, exitCouldNotCheck},
		"labels of a flag":            {without, "", []string{"--namespace-labels=env=production"}, exitCouldNotCheck},
		"another label":               {with, "team: b", nil, exitCouldNotCheck},
		"the label has another value": {with, "env: test", nil, exitDone},
		"only in the manifests":       {without, "team: b", nil, exitDone},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := fmt.Sprintf(namespace, c.labels) +
				strings.Replace(pod, "{name: web}", "{name: web, namespace: web}", 1)
			args := append([]string{"verify", "-f", "-", "--policies", c.policies}, c.args...)
			code, out, errs := runProcess(t, manifest, args...)
			if code != c.code {
				t.Errorf("got code %d, %s%s; want %d", code, out, errs, c.code)
			}
		})
	}
}
