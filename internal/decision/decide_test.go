package decision

import (
	"context"
	"errors"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// signed is an image.
const signed = "registry.example.com/acme/app:v1"

// A failed refresh turns the denial of a policy without a mode into "could not check".
func TestOutcomeWithoutAMode(t *testing.T) {
	unclear := outcomesNotRenewed([]policy.Outcome{{Policy: "unclear", Roots: []string{"acme"}}}, "acme",
		errors.New("no answer"))
	if unclear[0].Verdict != policy.CouldNotCheck || unclear[0].Reason != v1alpha1.ReasonTimeout {
		t.Errorf("a policy without a mode: got %+v, want CouldNotCheck with the reason Timeout", unclear[0])
	}
}

// If evidence is not loaded because a server is down, the message and the reason are those of that
// fault. If the fetch is still running, the reason stays NotLoaded.
func TestNotLoadedSaysWhy(t *testing.T) {
	image, err := imageref.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	outcome := func(name string, verdict policy.Verdict, reason, root string) policy.Outcome {
		return policy.Outcome{Policy: name, Verdict: verdict, Reason: reason, Roots: []string{root}}
	}
	tests := map[string]struct {
		err     error
		message string
		reason  string
	}{
		"server down": {
			trust.NewFault(v1alpha1.ReasonServerError, "the server failed with status 503"),
			`not loaded; TrustRoot "acme": the server failed with status 503`, v1alpha1.ReasonServerError,
		},
		"still running": {
			context.DeadlineExceeded, `not loaded; TrustRoot "acme": context deadline exceeded`,
			v1alpha1.ReasonNotLoaded,
		},
		"loaded": {nil, "not loaded", v1alpha1.ReasonNotLoaded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := []policy.Outcome{
				outcome("waits", policy.CouldNotCheck, v1alpha1.ReasonNotLoaded, "acme"),
				outcome("waits for another", policy.CouldNotCheck, v1alpha1.ReasonNotLoaded, "other"),
				outcome("decided", policy.Denied, v1alpha1.ReasonNotSigned, "acme"),
			}
			decided := Set{
				signed: {
					Verdict: policy.CouldNotCheck, Image: image, Message: "not loaded",
					NotLoaded: []trust.Key{{Root: "acme"}, {Root: "other"}}, Outcomes: before,
				},
			}
			decided.explainNotLoaded(map[trust.Key]error{{Root: "acme"}: tt.err})
			d := decided[signed]
			if d.Verdict != policy.CouldNotCheck || d.Message != tt.message {
				t.Errorf("got the verdict %d and the message %q, want %d and %q", d.Verdict, d.Message,
					policy.CouldNotCheck, tt.message)
			}
			for i, want := range []string{tt.reason, v1alpha1.ReasonNotLoaded, v1alpha1.ReasonNotSigned} {
				if d.Outcomes[i].Reason != want {
					t.Errorf("%s: got the reason %s, want %s", d.Outcomes[i].Policy, d.Outcomes[i].Reason, want)
				}
			}
			if before[0].Reason != v1alpha1.ReasonNotLoaded {
				t.Error("the argument was changed")
			}
		})
	}
}
