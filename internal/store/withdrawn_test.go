package store

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// withdrawnBench returns a store whose evidence a fault has ended: the pull secrets were refused.
func withdrawnBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	b.refetch(t, nil, &trust.Fault{Reason: v1alpha1.ReasonUnauthorized, Err: errors.New("refused"), Ends: true})
	b.faults(t, v1alpha1.ReasonUnauthorized)
	return b
}

// refetch fetches the evidence a minute later, with a given outcome.
func (b *bench) refetch(t *testing.T, e trust.Evidence, err error) {
	t.Helper()
	b.clock.Step(time.Minute)
	b.Load().Root("acme").Verifier.(*scripted).fetch = returning(e, err)
	_ = b.Renew(t.Context(), key(app), b.clock.Now())
}

// Evidence that a fault has ended counts again only once a fetch has succeeded. Neither an edit of
// the TrustRoot nor a record makes it count, though both verify it.
func TestThreatEditRevivesNothing(t *testing.T) {
	newer := func([]byte, trust.Evidence) (trust.Evidence, error) { return &fact{}, nil }
	edit := func(b *bench) { b.PutRoot("acme", Root{Verifier: &scripted{unpack: newer}}) }
	for name, c := range map[string]struct {
		then   func(t *testing.T, b *bench)
		reason string
	}{
		"an edit":   {func(_ *testing.T, b *bench) { edit(b) }, v1alpha1.ReasonUnauthorized},
		"two edits": {func(_ *testing.T, b *bench) { edit(b); edit(b) }, v1alpha1.ReasonUnauthorized},
		"an edit after a fetch with another fault": {func(t *testing.T, b *bench) {
			b.refetch(t, nil, trust.NewFault(v1alpha1.ReasonTimeout, "no answer"))
			b.faults(t, v1alpha1.ReasonTimeout)
			edit(b)
		}, v1alpha1.ReasonUnauthorized},
		"an edit that refuses it, and another": {func(_ *testing.T, b *bench) {
			b.PutRoot("acme", Root{Verifier: &scripted{recheck: func(trust.Evidence) (trust.Evidence, error) {
				return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "refused")
			}}})
			edit(b)
		}, v1alpha1.ReasonUnauthorized},
		"an edit that cannot be used, with a new epoch": {func(_ *testing.T, b *bench) {
			b.PutRoot("acme", Root{Fault: trust.NewFault(v1alpha1.ReasonInvalidKey, "no key"), Epoch: "new"})
			edit(b)
		}, v1alpha1.ReasonUnauthorized},
		"an edit with a record": {func(t *testing.T, b *bench) {
			if _, err := b.PutRootWith("acme", Root{Verifier: &scripted{unpack: newer}},
				written(map[string][]byte{appRepository: {1}}), never); err != nil {
				t.Fatal(err)
			}
		}, v1alpha1.ReasonUnauthorized},
		"the record of another replica": {func(_ *testing.T, b *bench) {
			edit(b)
			_ = b.Restore(acmeKey(appRepository), b.Load().Root("acme"), []byte{1})
		}, v1alpha1.ReasonUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			b := withdrawnBench(t)
			if all := b.Load().Verified(acmeKey(appRepository)); all == nil || len(all) != 0 {
				t.Errorf("the record should hold %#v, want an empty map, so that the record is deleted", all)
			}
			c.then(t, b)
			b.faults(t, c.reason)
			if all := b.Load().Verified(acmeKey(appRepository)); len(all) != 0 {
				t.Errorf("the record should hold %v, want nothing", all)
			}
			b.Reset("acme", time.Hour)
			again := &fact{}
			b.refetch(t, again, nil)
			b.holds(t, again)
		})
	}
}

// The same holds for what an edit verifies only after it has taken effect.
func TestThreatLateEditRevivesNothing(t *testing.T) {
	root := &scripted{fetch: returning(&fact{}, nil)}
	b := newBench(root)
	images := b.holdsMany(t)
	root.fetch = returning(nil, &trust.Fault{
		Reason: v1alpha1.ReasonUnauthorized, Err: errors.New("refused"), Ends: true,
	})
	b.clock.Step(time.Minute)
	for _, image := range images {
		_ = b.Renew(t.Context(), key(image), b.clock.Now())
	}
	var late atomic.Int32
	edited := &scripted{}
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if b.Load().Root("acme").Verifier == edited {
			late.Add(1)
			return held, nil
		}
		<-time.After(recheckTime)
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited})
	if got := count(b.Load(), images, v1alpha1.ReasonUnauthorized); got != len(images) || late.Load() == 0 {
		t.Errorf("%d of %d images stay refused, and %d of them were verified late; want all, and some late", got,
			len(images), late.Load())
	}
}

// Where nothing was held, a record does not count either after the fault.
func TestThreatRecordAfterARefusal(t *testing.T) {
	unpack := func([]byte, trust.Evidence) (trust.Evidence, error) { return &fact{}, nil }
	b := newBench(&scripted{unpack: unpack, fetch: returning(nil, &trust.Fault{
		Reason: v1alpha1.ReasonUnauthorized, Err: errors.New("refused"), Ends: true,
	})})
	_ = b.Ensure(t.Context(), key(app))
	b.faults(t, v1alpha1.ReasonUnauthorized)
	_ = b.Restore(acmeKey(appRepository), b.Load().Root("acme"), []byte{1})
	b.faults(t, v1alpha1.ReasonUnauthorized)
	b.PutRoot("acme", Root{Verifier: &scripted{unpack: unpack}})
	_ = b.Restore(acmeKey(appRepository), b.Load().Root("acme"), []byte{1})
	b.faults(t, v1alpha1.ReasonUnauthorized)
}
