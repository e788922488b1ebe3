package bench

import (
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// BenchmarkRevocation revokes a key that has signed every tag of 1,000 repositories. It reports two
// times after the publication of the edited trust root: until no decision counts the key any more,
// and until each repository is verified again. From then on, an image is denied only because it
// lacks the signature, and an image signed by other keys is admitted.
func BenchmarkRevocation(b *testing.B) {
	e := newEstate(b, many)
	before, err := notary.New(pin(e.signers), memory{})
	check(b, err)
	config := pin(e.signers)
	config.RevokedKeys = []string{e.signers.Roles["ci"].Canonical}
	revoked, err := notary.New(config, memory{})
	check(b, err)
	var effective, verified []time.Duration
	for b.Loop() {
		e.publish(before)
		for _, image := range e.images {
			check(b, e.decide(image, time.Now()))
		}
		begin := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			e.publish(revoked)
			done <- time.Since(begin)
		}()
		tick := time.NewTicker(time.Millisecond)
		for e.decide(e.images[0], time.Now()) == nil {
			<-tick.C
		}
		tick.Stop()
		effective = append(effective, time.Since(begin))
		for _, image := range e.images {
			if e.decide(image, time.Now()) == nil {
				b.Fatalf("%s: got it admitted with a revoked key, want it denied", image)
			}
		}
		verified = append(verified, <-done)
		for _, image := range e.images {
			if d := e.decision(image, time.Now()); d.Verdict != policy.Denied {
				b.Fatalf("%s: got %q after the verification, want it denied", image, d.Message)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(effective)), "ms/revoked")
	b.ReportMetric(median(verified).Seconds(), "s/verified-again")
}
