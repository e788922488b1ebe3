package webhooks

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

const shortName = "acme/app:signed"

// distrusting is a bench that reads short names as given, with policies that hold in the namespace
// shop.
func distrusting(t *testing.T, as policy.ShortNames, changes ...func(*v1alpha1.ImagePolicySpec)) *bench {
	t.Helper()
	var specs []v1alpha1.ImagePolicySpec
	for _, change := range changes {
		specs = append(specs, requireBoth(func(s *v1alpha1.ImagePolicySpec) {
			s.NamespaceSelector = &v1alpha1.NamespaceSelector{
				MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
			}
			change(s)
		}))
	}
	return newBenchReading(t, as, specs...)
}

// In every kind, a short name is denied by any policy of the namespace, even one for another
// registry. No trust root is fetched and nothing is pinned. The full name, and a namespace without
// a policy, are not affected.
func TestThreatShortNameIsDenied(t *testing.T) {
	quay := func(s *v1alpha1.ImagePolicySpec) { s.Images = []v1alpha1.ImagePattern{"quay.example.com/acme/**"} }
	b := distrusting(t, policy.ShortNamesDeny, quay)
	const want = `image "acme/app:signed": ImagePolicy "policy-0": it names no registry, and a node may pull it from any that it searches (--short-names=Deny); write docker.io/acme/app:signed or the registry that you mean`
	for _, k := range kinds(t) {
		t.Run(k.Name, func(t *testing.T) {
			for _, old := range []any{nil, object(k.Name, "docker.io/acme/app:signed")} {
				stored, got := b.admit(t, request{kind: k.Name, object: object(k.Name, shortName), old: old})
				wantDenied(t, got, 403)
				if got.Result.Message != want {
					t.Errorf("got\n%s\nwant\n%s", got.Result.Message, want)
				}
				wantImage(t, stored, shortName)
			}
			_, got := b.admit(t, request{
				kind: k.Name, object: object(k.Name, shortName), old: object(k.Name, shortName),
			})
			wantAdmitted(t, got) // an update that does not change the image
			_, got = b.admit(t, request{kind: k.Name, object: object(k.Name, "docker.io/"+shortName)})
			wantAdmitted(t, got)
			_, got = b.admit(t, request{kind: k.Name, namespace: "lab", object: object(k.Name, shortName)})
			wantAdmitted(t, got)
		})
	}
	if b.root.fetches != 0 {
		t.Errorf("got %d fetches, want none", b.root.fetches)
	}
}

// A short name is denied in every list of a Pod.
func TestThreatShortNameInEveryList(t *testing.T) {
	b := distrusting(t, policy.ShortNamesDeny, func(*v1alpha1.ImagePolicySpec) {})
	for name, change := range map[string]func(*corev1.PodSpec){
		"init": func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "x", Image: shortName}} },
		"container": func(s *corev1.PodSpec) {
			s.Containers = append(s.Containers, corev1.Container{Name: "x", Image: shortName})
		},
		"ephemeral": func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{
				{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "x", Image: shortName}},
			}
		},
		"volume": func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{
				{Name: "x", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: shortName}}},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := object("Pod", pinned).(*corev1.Pod)
			change(&pod.Spec)
			_, got := b.admit(t, request{kind: "Pod", object: pod})
			wantDenied(t, got, 403, "names no registry")
		})
	}
}

// The mode of the policy decides what happens to a short name. Of several policies, the strictest
// mode applies.
func TestShortNameByMode(t *testing.T) {
	in := func(mode v1alpha1.PolicyMode) func(*v1alpha1.ImagePolicySpec) {
		return func(s *v1alpha1.ImagePolicySpec) { s.Mode = mode }
	}
	enforce, warn, audit := in(v1alpha1.ModeEnforce), in(v1alpha1.ModeWarn), in(v1alpha1.ModeAudit)
	names := func(line string, i int) bool {
		return strings.Contains(line, fmt.Sprintf(`ImagePolicy "policy-%d": it names no registry`, i)) &&
			strings.Contains(line, "write docker.io/acme/app:signed")
	}
	for _, kind := range []string{"Pod", "Deployment"} {
		got := distrusting(t, policy.ShortNamesDeny, warn, enforce, audit).validate(t,
			request{kind: kind, object: object(kind, shortName)})
		wantDenied(t, got, 403, `ImagePolicy "policy-1": it names no registry`)

		stored, got := distrusting(t, policy.ShortNamesDeny, audit, warn).admit(t,
			request{kind: kind, object: object(kind, shortName)})
		wantAdmitted(t, got)
		wantImage(t, stored, shortName)
		if len(got.Warnings) != 1 || !names(got.Warnings[0], 1) || !names(got.AuditAnnotations[auditAnnotation], 0) {
			t.Errorf("got the warnings %q and the audit annotations %q, want one of each policy", got.Warnings,
				got.AuditAnnotations)
		}
	}
}

// With --short-names=DockerIO, a short name is decided on and pinned as its full name on docker.io.
func TestShortNameOfDockerIO(t *testing.T) {
	b := distrusting(t, policy.ShortNamesDockerIO,
		func(s *v1alpha1.ImagePolicySpec) { s.Images = []v1alpha1.ImagePattern{"acme/**"} })
	stored, got := b.admit(t, request{kind: "Pod", object: object("Pod", shortName)})
	wantAdmitted(t, got)
	wantImage(t, stored, "docker.io/"+shortName+"@"+digestA)
	_, got = b.admit(t, request{kind: "Pod", object: object("Pod", "acme/app:ci-only")})
	wantDenied(t, got, 403, `role "qa" has not signed`)
	b.root.answers(&evidence{statements: []trust.Statement{}}, nil)
	_, got = b.admit(t, request{kind: "Pod", object: object("Pod", "acme/other:v1")})
	wantDenied(t, got, 403, `role "ci" has not signed`)
}
