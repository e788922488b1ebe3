package store

import (
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
)

// The settings for short names and for uncovered images stay the same in every publication.
func TestThreatSettingsOutlastPublications(t *testing.T) {
	compiled, err := policy.Compile("production", &v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"quay.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"acme"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for as, short := range map[policy.ShortNames]policy.Verdict{
		policy.ShortNamesDeny: policy.Denied, policy.ShortNamesDockerIO: policy.Admitted,
	} {
		t.Run(as.String(), func(t *testing.T) {
			s := New(Options{Uncovered: policy.UncoveredWarn, ShortNames: as})
			decide := func(image string) policy.Decision {
				return s.Load().Policies.Decide(policy.Request{Image: image}, s.Load())
			}
			for range 2 {
				s.PutPolicy(compiled, "1")
				s.MarkPrimed()
				if got := decide("acme/app:v1"); got.Verdict != short {
					t.Errorf("verdict %d on a short name, want %d: %s", got.Verdict, short, got.Message)
				}
				if got := decide("docker.io/acme/app:v1"); got.Verdict != policy.Admitted || len(got.Warnings) != 1 {
					t.Errorf("an image that none covers: %+v", got)
				}
				s.DropPolicy("production")
				if got := decide("acme/app:v1"); got.Verdict != policy.Admitted || len(got.Warnings) != 1 {
					t.Errorf("a short name where no policy holds: %+v", got)
				}
			}
		})
	}
}
