package compliance

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
)

// shortNamed evaluates a Pod against three policies. Policy lab holds only in other namespaces. The
// digest a of docker.io/acme/app is signed by both roles.
func shortNamed(t *testing.T, as policy.ShortNames, images ...Image) *Result {
	t.Helper()
	return Evaluate(Input{
		Pods: []Pod{pod("web", images...)}, Namespaces: map[string]labels.Set{"shop": {"env": "production"}}, Now: now,
		Roots: roots{"acme": {"docker.io/acme/app": signed("ci v1 a", "qa v1 a")}},
		Policies: compile(t,
			rule{
				name: "production", images: "quay.example.com/acme/**", env: "production", root: "acme",
				mode: v1alpha1.ModeWarn, roles: []v1alpha1.RoleName{"ci"},
			},
			rule{name: "lab", images: "acme/**", env: "lab", root: "acme", roles: []v1alpha1.RoleName{"ci"}},
			rule{name: "usual", images: "docker.io/acme/**", root: "acme", roles: []v1alpha1.RoleName{"ci", "qa"}},
		).ReadShortNames(as),
	})
}

// Under Deny, a running image with a short name violates every policy that holds, whatever digest
// the kubelet reports: admission would deny it too. Under DockerIO it is an image of docker.io.
func TestThreatShortNameThatRuns(t *testing.T) {
	for name, image := range map[string]Image{
		"nothing reported": {"acme/app:v1", ""},
		"a signed digest":  {"acme/app:v1", digest("a")},
		"a digest named":   {"acme/app:v1@" + digest("a"), digest("a")},
		"a digest alone":   {"acme/app@" + digest("a"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := shortNamed(t, policy.ShortNamesDeny, image)
			want := []ImageFinding{{Image: image.Spec, Verdict: policy.Denied, Reason: v1alpha1.ReasonShortName}}
			for _, p := range []string{"production", "usual"} {
				s := r.Policies[p]
				if s.Covered != 1 || s.Violating != 1 || len(s.Findings) != 1 {
					t.Fatalf("policy %s: got %+v, want one violation", p, s)
				}
				if diff := cmp.Diff(want, s.Findings[0].Images); diff != "" {
					t.Errorf("policy %s (-want +got):\n%s", p, diff)
				}
			}
			if s := r.Policies["lab"]; s.Covered != 0 {
				t.Errorf("a policy that does not hold: got %+v, want 0 covered", s)
			}
			if len(r.Needs) != 0 || r.NotLoaded != 0 {
				t.Errorf("got needs %v and %d not loaded, want none", r.Needs, r.NotLoaded)
			}
			full := Image{"docker.io/" + image.Spec, image.Digest}
			for as, image := range map[policy.ShortNames]Image{
				policy.ShortNamesDeny: full, policy.ShortNamesDockerIO: image,
			} {
				r := shortNamed(t, as, image)
				if r.Policies["usual"].Covered != 1 || r.Policies["usual"].Violating != 0 ||
					r.Policies["production"].Covered != 0 {
					t.Errorf("%s, %s: got %+v, want it to meet the policy for docker.io", as, image.Spec, r.Policies)
				}
			}
		})
	}
}

// One short name with several digests is one image of the finding. The same image with its full
// name is another one.
func TestShortNameIsOneFinding(t *testing.T) {
	r := shortNamed(t, policy.ShortNamesDeny,
		Image{"acme/app:v1", digest("a")}, Image{"acme/app:v1", digest("b")},
		Image{"docker.io/acme/app:v1", digest("b")})
	want := []ImageFinding{
		{Image: "acme/app:v1", Verdict: policy.Denied, Reason: v1alpha1.ReasonShortName},
		{
			Image: "docker.io/acme/app@" + digest("b"), Tag: "v1", Verdict: policy.Denied,
			Reason: v1alpha1.ReasonNotSigned, Missing: []string{"ci", "qa"},
		},
	}
	if diff := cmp.Diff(want, r.Policies["usual"].Findings[0].Images); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
