package check_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/olm"
	"github.com/countersign-dev/countersign/internal/olm/check"
	"github.com/countersign-dev/countersign/internal/olm/compose"
)

// fault is a fault to put into a bundle or a catalog, and the problem that a check must report.
type fault struct {
	put   func(t *testing.T, f compose.Files)
	check string
	says  string
}

// csv returns a fault in the ClusterServiceVersion.
func csv(check, says string, change func(any) any, path ...any) fault {
	return in(olm.CSVFile, check, says, change, path...)
}

// in returns a fault in the object of a file.
func in(name, check, says string, change func(any) any, path ...any) fault {
	return fault{func(t *testing.T, f compose.Files) { edit(t, f, name, change, path...) }, check, says}
}

// missing returns a fault that deletes a file.
func missing(name, check, says string) fault {
	return fault{func(t *testing.T, f compose.Files) {
		if _, ok := f[name]; !ok {
			t.Fatalf("there is no %s", name)
		}
		delete(f, name)
	}, check, says}
}

// added returns a fault that adds or replaces a file.
func added(name, text, check, says string) fault {
	return fault{func(_ *testing.T, f compose.Files) { f[name] = []byte(text) }, check, says}
}

// text returns a fault that replaces text in a file.
func text(name, old, with, check, says string) fault {
	return fault{func(t *testing.T, f compose.Files) {
		changed := strings.ReplaceAll(string(f[name]), old, with)
		if changed == string(f[name]) {
			t.Fatalf("%s does not have %q", name, old)
		}
		f[name] = []byte(changed)
	}, check, says}
}

// both returns two faults at once. The check must report the problem of a.
func both(a, b fault) fault {
	return fault{func(t *testing.T, f compose.Files) { a.put(t, f); b.put(t, f) }, a.check, a.says}
}

// Paths in the ClusterServiceVersion.
func deployment(path ...any) []any {
	return append([]any{"spec", "install", "spec", "deployments", 0, "spec"}, path...)
}
func podSpec(path ...any) []any { return deployment(append([]any{"template", "spec"}, path...)...) }
func container(path ...any) []any {
	return podSpec(append([]any{"containers", 0}, path...)...)
}
func annotation(name string) []any { return []any{"metadata", "annotations", name} }
func policyKind(path ...any) []any {
	return append([]any{"spec", "customresourcedefinitions", "owned", 0}, path...)
}

func appended(v any) func(any) any {
	return func(old any) any {
		items, _ := old.([]any)
		return append(items, v)
	}
}

func dropFirst(old any) any {
	items, _ := old.([]any)
	return items[1:]
}

const (
	policyCRD = olm.ManifestsDir + "/imagepolicies.countersign.dev.customresourcedefinition.yaml"
	ownerFile = olm.ManifestsDir + "/countersign-webhook-owner.clusterrole.yaml"
	roleFile  = olm.ManifestsDir + "/countersign-manager.role.yaml"
	boundFile = olm.ManifestsDir + "/countersign-manager.rolebinding.yaml"
	caFile    = olm.ManifestsDir + "/countersign-trusted-ca.configmap.yaml"
	quayImage = "quay.io/operator-framework/scorecard-test"
)

// Bundle accepts the bundle, and reports each fault.
func TestChecksFindFaults(t *testing.T) {
	in := input(t)
	bundle, _ := files(t, in)
	checker := check.New(in.Rendered)
	if problems := checker.Bundle(bundle); len(problems) > 0 {
		t.Fatalf("got problems %v before any fault, want none", problems)
	}
	faults := map[string]map[string]fault{
		"layout": layoutFaults(), "shown": shownFaults(), "install": installFaults(), "kinds": kindFaults(),
		"rights": rightFaults(),
	}
	for group, faults := range faults {
		for name, f := range faults {
			t.Run(group+"/"+name, func(t *testing.T) {
				broken := maps.Clone(bundle)
				f.put(t, broken)
				found(t, checker.Bundle(broken), f)
			})
		}
	}
}

func found(t *testing.T, problems []check.Problem, f fault) {
	t.Helper()
	if !slices.ContainsFunc(problems,
		func(p check.Problem) bool { return p.Check == f.check && strings.Contains(p.Text, f.says) }) {
		t.Errorf("got problems %v, want one of the check %q with %q", problems, f.check, f.says)
	}
}

func layoutFaults() map[string]fault {
	const bundle = "operators.operatorframework.io.bundle."
	label := func(name string) []any { return []any{"annotations", name} }
	return map[string]fault{
		"no versions of OpenShift": in(olm.AnnotationsFile, "annotations", "not \"v4.17\"", to(nil),
			label(olm.AnnotationOpenShift)...),
		"another version of OpenShift": in(olm.AnnotationsFile, "annotations", "not \"v4.17\"", to("v4.16"),
			label(olm.AnnotationOpenShift)...),
		"no annotations":             missing(olm.AnnotationsFile, "layout", "is missing"),
		"no scorecard configuration": missing(olm.ScorecardFile, "layout", "is missing"),
		"no Dockerfile":              missing(olm.Dockerfile, "layout", "is missing"),
		"no ClusterServiceVersion":   missing(olm.CSVFile, "layout", "one ClusterServiceVersion, there are 0"),
		"two ClusterServiceVersions": added(manifestFile("second"),
			"apiVersion: operators.coreos.com/v1alpha1\nkind: ClusterServiceVersion\nmetadata: {name: second}",
			"layout", "there are 2"),
		"another file": added(olm.BundleDir+"/notes.txt", "x", "layout", "must not be in"),
		"a folder in the manifests": added(olm.ManifestsDir+"/more/a.yaml", "kind: Secret", "layout",
			"must not be in"),
		"two objects in a file": {func(_ *testing.T, f compose.Files) {
			f[ownerFile] = append(slices.Clone(f[ownerFile]), "---\nkind: Secret"...)
		}, "layout", "is not one object"},
		"no object": added(manifestFile("empty"), "", "layout", "is not one object"),
		"a kind that OLM does not accept": added(manifestFile("n"),
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: other}", "layout", "may not hold a Namespace"),
		"the service account": added(manifestFile("s"),
			"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: countersign-manager}", "layout",
			"may not hold a ServiceAccount"),
		"a webhook configuration": added(manifestFile("w"),
			"apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: w}",
			"layout", "may not hold"),
		"a removed API version": in(manifestFile("countersign-manager.poddisruptionbudget"), "layout",
			"must be of policy/v1", to("policy/v1beta1"), "apiVersion"),
		"a namespace": in(roleFile, "layout", "names the namespace", to("other"), "metadata",
			"namespace"),
		"too large": {
			func(_ *testing.T, f compose.Files) { f[manifestFile("noise")] = noise() }, "layout",
			"bytes when compressed",
		},
		"another media type": in(olm.AnnotationsFile, "annotations", "mediatype", to("plain+v0"),
			label(bundle+"mediatype.v1")...),
		"manifests elsewhere": in(olm.AnnotationsFile, "annotations", "manifests.v1", to("deploy/"),
			label(bundle+"manifests.v1")...),
		"another package": in(olm.AnnotationsFile, "annotations", "package.v1", to("other"),
			label(bundle+"package.v1")...),
		"an unknown default channel": in(olm.AnnotationsFile, "annotations", "is not one of the channels",
			to("stable"), label(bundle+"channel.default.v1")...),
		"an unusual channel": in(olm.AnnotationsFile, "annotations", "does not begin with candidate",
			to("beta,candidate"),
			label(bundle+"channels.v1")...),
		"scorecard elsewhere": in(olm.AnnotationsFile, "annotations", "scorecard", to("tests/"),
			label("operators.operatorframework.io.test.config.v1")...),
		"a changed label": text(olm.Dockerfile, "package.v1=countersign", "package.v1=other", "dockerfile",
			"labels differ"),
		"a missing label": text(olm.Dockerfile,
			"LABEL operators.operatorframework.io.test.mediatype.v1=scorecard+v1\n", "", "dockerfile", "labels differ"),
		"another target of a copy": text(olm.Dockerfile, " /metadata/", " /meta/", "dockerfile", "copies"),
		"another base image": text(olm.Dockerfile, "FROM scratch", "FROM busybox", "dockerfile",
			"not from scratch"),
		"a command": text(olm.Dockerfile, "FROM scratch", "FROM scratch\nRUN true", "dockerfile",
			"unknown instruction"),
		"a missing scorecard test": in(olm.ScorecardFile, "scorecard", "it runs", dropFirst, "stages", 0, "tests"),
		"a scorecard test without a name": in(olm.ScorecardFile, "scorecard", "runs [\"scorecard-test\"",
			to([]any{"scorecard-test"}), "stages", 0, "tests", 0, "entrypoint"),
		"two scorecard images": in(olm.ScorecardFile, "scorecard", "not a single one", to(quayImage+":v1"), "stages", 0,
			"tests", 0, "image"),
		"another scorecard kind": in(olm.ScorecardFile, "scorecard", "is not a Configuration", to("Config"), "kind"),
	}
}

func shownFaults() map[string]fault {
	feature := func(name string) []any { return annotation(olm.AnnotationFeature + name) }
	relabelled := func(old any) any {
		template, _ := old.(string)
		return strings.Replace(template, `"labels":{`, `"labels":{"team":"a",`, 1)
	}
	return map[string]fault{
		"another API version": csv("csv", "apiVersion", to("operators.coreos.com/v1"), "apiVersion"),
		"an unknown field":    csv("csv", "unknown field", with("displayname", "x"), "spec"),
		"another name": csv("csv", "is not \"countersign.v0.1.0\"", to("countersign.v0.1.1"), "metadata",
			"name"),
		"no version":               csv("csv", "is not a semantic version", to("1"), "spec", "version"),
		"replaces without a range": csv("csv", "both or none", to("countersign.v0.0.9"), "spec", "replaces"),
		"replaces a bare version": both(csv("csv", "not an earlier version", to("0.0.9"), "spec", "replaces"),
			csv("", "", to(">=0.0.0 <0.1.0"), annotation(olm.AnnotationSkipRange)...)),
		"replaces itself": csv("csv", "not an earlier version", to("countersign.v0.1.0"), "spec", "replaces"),
		"a range without replaces": csv("csv", "both or none", to(">=0.0.0 <0.1.0"),
			annotation(olm.AnnotationSkipRange)...),
		"no Kubernetes version":   csv("csv", "minKubeVersion", to("1.30"), "spec", "minKubeVersion"),
		"no display name":         csv("csv", "displayName is empty", to(""), "spec", "displayName"),
		"no description":          csv("csv", "description is empty", to(" "), "spec", "description"),
		"no provider":             csv("csv", "provider.name is empty", to(nil), "spec", "provider"),
		"an unknown maturity":     csv("csv", "maturity", to("ripe"), "spec", "maturity"),
		"no keywords":             csv("csv", "keywords", to(nil), "spec", "keywords"),
		"no maintainers":          csv("csv", "maintainers", to(nil), "spec", "maintainers"),
		"no address":              csv("csv", "no address", to("nobody"), "spec", "maintainers", 0, "email"),
		"no link":                 csv("csv", "links", to(nil), "spec", "links"),
		"an invalid link":         csv("csv", "no https URL", to("somewhere"), "spec", "links", 0, "url"),
		"a link without TLS":      csv("csv", "no https URL", to("http://example.com"), "spec", "links", 0, "url"),
		"no icon":                 csv("icon", "one icon", to(nil), "spec", "icon"),
		"an icon of another type": csv("icon", "one icon", to("image/tiff"), "spec", "icon", 0, "mediatype"),
		"an icon not in base64":   csv("icon", "not base64", to("<svg/>"), "spec", "icon", 0, "base64data"),
		"an icon that is not SVG": csv("icon", "its root element is \"b\"", to("PGI+PC9iPg=="), "spec", "icon", 0,
			"base64data"),
		"an icon that is not XML": csv("icon", "not XML", to("PHN2Zz4="), "spec", "icon", 0, "base64data"),
		"an unknown level": csv("answers", "capabilities", to("Level 3"),
			annotation(olm.AnnotationCapabilities)...),
		"an unknown category": csv("answers", "unknown category", to("Security,Gates"),
			annotation(olm.AnnotationCategories)...),
		"a long short description": csv("answers", "characters", to(strings.Repeat("a", 136)),
			annotation(olm.AnnotationDescription)...),
		"no short description": csv("answers", "characters", to(nil), annotation(olm.AnnotationDescription)...),
		"no time":              csv("answers", "createdAt", to("today"), annotation(olm.AnnotationCreatedAt)...),
		"no repository": csv("answers", "repository is missing", to(nil),
			annotation(olm.AnnotationRepository)...),
		"a missing feature":  csv("answers", "neither true nor false", to(nil), feature("disconnected")...),
		"an invalid feature": csv("answers", "neither true nor false", to("maybe"), feature("tls-profiles")...),
		"an unknown feature": csv("answers", "is not a known feature", to("true"), feature("cnf")...),
		"no monitoring": csv("answers", "cluster-monitoring", to("false"),
			annotation(olm.AnnotationMonitoring)...),
		"a missing architecture": csv("answers", "arch.arm64 is not set to supported", to(nil), "metadata", "labels",
			"operatorframework.io/arch.arm64"),
		"another namespace": csv("answers", "suggested-namespace", to("elsewhere"),
			annotation(olm.AnnotationNamespace)...),
		"a namespace without labels": csv("answers", "restricted Pod Security",
			to(`{"kind":"Namespace","metadata":{"name":"countersign-system"}}`),
			annotation(olm.AnnotationNamespaceTemplate)...),
		"a namespace with another label": csv("config", "Namespace/countersign-system differs from config", relabelled,
			annotation(olm.AnnotationNamespaceTemplate)...),
		"an invalid namespace": csv("answers", "suggested-namespace-template", to("{"),
			annotation(olm.AnnotationNamespaceTemplate)...),
	}
}

func installFaults() map[string]fault {
	env := func(name, value string) any { return []any{map[string]any{"name": name, "value": value}} }
	terms := podSpec("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
	splitTerms := func(old any) any {
		all, _ := old.([]any)
		term, _ := all[0].(map[string]any)
		var split []any
		expressions, _ := term["matchExpressions"].([]any)
		for _, e := range expressions {
			split = append(split, map[string]any{"matchExpressions": []any{e}})
		}
		return split
	}
	return map[string]fault{
		"for its own namespace": csv("install", "install modes", to(true), "spec", "installModes", 0, "supported"),
		"not for all namespaces": csv("install", "install modes", to(false), "spec", "installModes", 3,
			"supported"),
		"a missing mode": csv("install", "install modes", dropFirst, "spec", "installModes"),
		"a webhook": csv("install", "defines webhooks",
			with("webhookdefinitions", []any{map[string]any{"type": "ValidatingAdmissionWebhook"}}), "spec"),
		"an API service": csv("install", "API services",
			with("apiservicedefinitions", map[string]any{"owned": []any{}}), "spec"),
		"another strategy": csv("install", "strategy", to("job"), "spec", "install", "strategy"),
		"an account without permissions": csv("install", "which OLM does not create", to("default"),
			podSpec("serviceAccountName")...),
		"a selector of other Pods": csv("install", "does not select", to("other"),
			deployment("selector", "matchLabels", "app.kubernetes.io/name")...),
		"no requests": csv("install", "requests no CPU", to(nil), container("resources", "requests")...),
		"no probe":    csv("install", "lacks a probe", to(nil), container("readinessProbe")...),
		"its own proxy": csv("install", "sets HTTPS_PROXY, which the cluster must set",
			to(env("HTTPS_PROXY", "")), container("env")...),
		"its own namespace": csv("install", "has the flag --namespace", appended("--namespace=a"),
			container("args")...),
		"any architecture": csv("install", "the labels declare", to(nil), podSpec("affinity")...),
		"two terms": csv("install", "the labels declare", splitTerms,
			append(terms, "nodeSelectorTerms")...),
		"every other architecture": csv("install", "the labels declare", to("NotIn"),
			append(terms, "nodeSelectorTerms", 0, "matchExpressions", 1, "operator")...),
		"an unsupported architecture": csv("install", "the labels declare",
			with("operatorframework.io/arch.s390x", "supported"), "metadata", "labels"),
		"the host network": csv("pod security", "shares namespaces", to(true), podSpec("hostNetwork")...),
		"a hostPath": csv("pod security", "is a hostPath",
			appended(map[string]any{"name": "v", "hostPath": map[string]any{"path": "/"}}), podSpec("volumes")...),
		"possibly root": csv("pod security", "may run as root", to(nil),
			podSpec("securityContext", "runAsNonRoot")...),
		"no seccomp profile": csv("pod security", "seccomp", to(nil),
			podSpec("securityContext", "seccompProfile")...),
		"a user": csv("pod security", "set a user", to(65532),
			podSpec("securityContext", "runAsUser")...),
		"a user of the container": csv("pod security", "sets a user", to(65532),
			container("securityContext", "runAsUser")...),
		"a container as root": csv("pod security", "overrides its Pod", to(false),
			container("securityContext", "runAsNonRoot")...),
		"a container without seccomp": csv("pod security", "overrides its Pod",
			to(map[string]any{"type": "Unconfined"}), container("securityContext", "seccompProfile")...),
		"privilege escalation": csv("pod security", "may gain privileges", to(true),
			container("securityContext", "allowPrivilegeEscalation")...),
		"capabilities": csv("pod security", "has capabilities", to(nil),
			container("securityContext", "capabilities")...),
		"a writable root": csv("pod security", "may write", to(false),
			container("securityContext", "readOnlyRootFilesystem")...),
		"no trusted CAs": in(caFile, "trusted CA", "there is no ConfigMap", to(nil), "metadata", "labels",
			"config.openshift.io/inject-trusted-cabundle"),
		"other trusted CAs": csv("trusted CA", "does not mount ConfigMap/countersign-trusted-ca",
			to("trusted-ca"), podSpec("volumes", 0, "configMap", "name")...),
		"trusted CAs in another folder": csv("trusted CA", "in /etc/pki/tls/certs", to("/etc/pki/tls"),
			container("volumeMounts", 0, "mountPath")...),
		"an image by tag": csv("images", "not named by digest", to("registry.example.com/countersign:v1"),
			container("image")...),
		"an image by tag and digest": csv("images", "has a tag", to(strings.Replace(operatorImage, "@", ":v1@", 1)),
			container("image")...),
		"an invalid image": csv("images", "invalid reference", to("A B"), container("image")...),
		"an image that is not related": csv("images", "the related images are",
			to(env("RELATED_IMAGE_X", operatorImage+"0")),
			container("env")...),
		"a related image that does not run": csv("images", "the related images are",
			appended(map[string]any{"name": "x", "image": "registry.example.com/x"}), "spec", "relatedImages"),
		"an image without a name": csv("images", "has no name", to(""), "spec", "relatedImages", 0, "name"),
		"another image in the annotation": csv("images", "does not run",
			to("registry.example.com/x@sha256:"+strings.Repeat("0", 64)), annotation(olm.AnnotationContainerImage)...),
		"another flag": csv("config", "Deployment/countersign-manager differs from config",
			appended("--uncovered-images=Deny"), container("args")...),
		"a missing object of config": missing(manifestFile("countersign-webhook.service"), "config",
			"Service/countersign-webhook is missing"),
		"a changed object": in(manifestFile("countersign-manager.networkpolicy"), "config",
			"differs from config", to([]any{}), "spec", "ingress"),
		"an additional object": added(manifestFile("more"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}",
			"config", "ConfigMap/more is not in config"),
		"a duplicate object": added(manifestFile("more"),
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: countersign-trusted-ca}", "config", "is a duplicate"),
	}
}

func kindFaults() map[string]fault {
	examples := func(old, with string) fault {
		return csv("examples", "", func(v any) any {
			s, _ := v.(string)
			return strings.Replace(s, old, with, 1)
		}, annotation(olm.AnnotationExamples)...)
	}
	say := func(f fault, says string) fault { f.says = says; return f }
	const hint = "urn:alm:descriptor:com.tectonic.ui:"
	schemaAt := func(path ...any) []any {
		return append([]any{"spec", "versions", 0, "schema", "openAPIV3Schema", "properties"}, path...)
	}
	return map[string]fault{
		"a missing CRD": missing(policyCRD, "kinds", "is described, but has no CRD"),
		"a CRD without a description": csv("kinds", "has a CRD, but is not described", dropFirst, "spec",
			"customresourcedefinitions", "owned"),
		"another kind":    csv("kinds", "does not serve", to("ImagePolicies"), policyKind("kind")...),
		"another version": csv("kinds", "does not serve", to("v1"), policyKind("version")...),
		"no description":  csv("kinds", "no description", to(nil), policyKind("description")...),
		"no resources":    csv("kinds", "names no resources", to(nil), policyKind("resources")...),
		"a resource without kind": csv("kinds", "without kind or version", to(""),
			policyKind("resources", 0, "kind")...),
		"an invalid schema": in(policyCRD, "kinds", "imagepolicies.countersign.dev: spec", to("strings"),
			schemaAt("spec", "type")...),
		"no schema of the spec":     in(policyCRD, "kinds", "no schema for the spec", to(nil), schemaAt("spec")...),
		"no schema":                 in(policyCRD, "kinds", "no schema", to(nil), "spec", "versions", 0, "schema"),
		"an unknown field of a CRD": in(policyCRD, "kinds", "unknown field", with("colour", "red"), "spec"),
		"a function of 1.30": in(policyCRD, "kinds",
			"cannot be installed on Kubernetes 1.30.0: rule 0 of .spec.mode: compilation failed",
			with("x-kubernetes-validations", []any{map[string]any{"rule": "!isIP(self)"}}),
			schemaAt("spec", "properties", "mode")...),
		"an unknown field": csv("descriptors", "has no field spec.image", to("image"),
			policyKind("specDescriptors", 0, "path")...),
		"an unknown inner field": csv("descriptors", "has no field spec.images[0].name",
			appended(map[string]any{"path": "images[0].name", "displayName": "x", "description": "x"}),
			policyKind("specDescriptors")...),
		"an index of a field that is no list": csv("descriptors", "has no field spec.mode[0]",
			appended(map[string]any{"path": "mode[0]", "displayName": "x", "description": "x"}),
			policyKind("specDescriptors")...),
		"an unknown status": csv("descriptors", "has no field status.phase", to("phase"),
			policyKind("statusDescriptors", 0, "path")...),
		"a field without a descriptor": csv("descriptors", "spec.images is not described", dropFirst,
			policyKind("specDescriptors")...),
		"a status field without a descriptor": csv("descriptors", "status.conditions is not described", dropFirst,
			policyKind("statusDescriptors")...),
		"a descriptor without a name": csv("descriptors", "no display name", to(""),
			policyKind("specDescriptors", 0, "displayName")...),
		"two descriptors of a field": csv("descriptors", "described twice",
			appended(map[string]any{"path": "images", "displayName": "x", "description": "x"}),
			policyKind("specDescriptors")...),
		"an unknown hint": csv("descriptors", "has the hint", to([]any{"text"}),
			policyKind("specDescriptors", 0, "x-descriptors")...),
		"a misspelt hint": csv("descriptors", "has the hint", to([]any{hint + "txt"}),
			policyKind("specDescriptors", 5, "x-descriptors")...),
		"a hint for another type": csv("descriptors", "does not fit the type boolean",
			to([]any{hint + "number"}), policyKind("specDescriptors", 8, "x-descriptors")...),
		"no choice of an inner field": csv("descriptors",
			"spec.notary.plainHTTP offers \"\", but the schema accepts \"Allow, Forbid\"",
			appended(map[string]any{"path": "notary.plainHTTP", "displayName": "x", "description": "x"}), "spec",
			"customresourcedefinitions", "owned", 1, "specDescriptors"),
		"a missing choice": csv("descriptors", "offers", dropFirst,
			policyKind("specDescriptors", 9, "x-descriptors")...),
		"examples that are not JSON": say(examples("[", "{"), "alm-examples"),
		"an example of another kind": say(examples(`"kind": "ImagePolicy"`, `"kind": "ImageRule"`),
			"is not a kind of this bundle"),
		"a kind without an example": csv("examples", "none of kind TrustRoot", to(`[]`),
			annotation(olm.AnnotationExamples)...),
		"an example without spec": say(examples(`"spec": {`, `"spc": {`), "has no spec"),
		"a duplicate example":     say(examples(`"name": "security-tryout"`, `"name": "production"`), "is a duplicate"),
		"an unknown field of an example": say(examples(`"requiredRoles"`, `"requiredRole"`),
			"unknown fields: spec.requiredRole"),
		"a value out of bounds": say(examples(`"mode": "Warn"`, `"mode": "Shout"`),
			"mode must be Enforce, Warn or Audit"),
		"a violated rule": say(examples(`"allowUnsigned": true,`, ``), "Invalid value"),
	}
}

func rightFaults() map[string]fault {
	secrets := map[string]any{"apiGroups": []any{""}, "resources": []any{"secrets"}, "verbs": []any{"get"}}
	permissions := []any{map[string]any{"serviceAccountName": "countersign-manager", "rules": []any{secrets}}}
	rules := []any{"spec", "install", "spec", "clusterPermissions", 0, "rules"}
	return map[string]fault{
		"an additional permission": csv("rights",
			"the bundle grants more than config: countersign-system/countersign-manager may get secrets. (any "+
				"name) in the cluster", appended(secrets), rules...),
		"a missing permission": csv("rights", "the bundle grants less than config", dropFirst, rules...),
		"namespaced permissions": csv("rights", "would apply in the whole cluster",
			with("permissions", permissions), "spec", "install", "spec"),
		"a missing resource name": in(roleFile, "rights", "may update secrets. (any name)", to(nil), "rules", 3,
			"resourceNames"),
		"an account of another namespace": in(boundFile, "rights",
			"the bundle grants more than config: elsewhere/countersign-manager", to("elsewhere"), "subjects", 0,
			"namespace"),
		"an unknown role":   in(boundFile, "rights", "which does not exist", to("other"), "roleRef", "name"),
		"a missing binding": missing(boundFile, "rights", "the bundle grants less than config"),
		"a wildcard": csv("rights", "a wildcard", to([]any{"*"}),
			append(slices.Clone(rules), 0, "verbs")...),
		"no owner": missing(ownerFile, "owner", "is missing"),
		"an owner that OLM would keep": in(ownerFile, "owner", "would not be deleted", to(nil), "metadata", "labels",
			olm.LabelOwner),
		"an owner of another version": in(ownerFile, "owner", "would not be deleted", to("countersign.v0.0.9"),
			"metadata", "labels", olm.LabelOwner),
		"an owner of another namespace": in(ownerFile, "owner", "would not be deleted", to("operators"), "metadata",
			"labels", olm.LabelOwnerNamespace),
		"an owner with rules": in(ownerFile, "owner", "must not grant anything", to([]any{secrets}), "rules"),
		"another role that OLM would keep": in(manifestFile("countersign-metrics-reader.clusterrole"), "owner",
			"countersign-metrics-reader would not be deleted", to(nil), "metadata", "labels", olm.LabelOwnerKind),
		"a Role with the labels": in(roleFile, "owner", "treat it as its own",
			with(olm.LabelOwner, "countersign.v0.1.0"), "metadata", "labels"),
	}
}
