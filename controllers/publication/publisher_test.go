package publication

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// trustFormats are the formats that a TrustRoot can have.
func trustFormats() []trust.Format { return []trust.Format{notary.Format{}} }

// A status may contain made-up names. It must stay within the bounds of the API, or the API server
// would refuse it.
func TestStatusIsBounded(t *testing.T) {
	fault := trust.NewFault(v1alpha1.ReasonUnreachable, "%s", strings.Repeat("x", 5000))
	held := store.Status{
		Tracked: 20, Failing: 20, ExpiresFirst: strings.Repeat("e", 3000), Expires: time.Unix(1_900_000_000, 0),
	}
	for range 20 {
		held.Faults = append(held.Faults, store.RepositoryFault{Repository: strings.Repeat("r", 3000), Fault: fault})
	}
	got := statusOf(root(), &store.Root{}, held)
	if n := len(got.Repositories.Errors); n != maxErrors {
		t.Errorf("%d errors are listed, want %d", n, maxErrors)
	}
	for _, text := range []string{
		got.Repositories.Errors[0].Repository, got.Repositories.Errors[0].Message, got.ExpiresFirst,
	} {
		if len(text) > status.MessageBytes {
			t.Errorf("a text of %d bytes, want at most %d", len(text), status.MessageBytes)
		}
	}
	for _, c := range got.Conditions {
		if len(c.Message) > status.MessageBytes {
			t.Errorf("condition %s has a message of %d bytes", c.Type, len(c.Message))
		}
	}
}

func root() *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme"},
		Spec: v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
			Server: "https://notary.example.com",
			Root:   v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(strings.Repeat("a", 64))}},
		}},
	}
}
