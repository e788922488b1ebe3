package store

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// seen is an observer that records its calls.
type seen struct {
	mu  sync.Mutex
	all []Verification
}

func (s *seen) Verified(v Verification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, v)
}

func TestObserverIsToldOfEveryVerification(t *testing.T) {
	root := &scripted{fetch: returning(&fact{}, nil)}
	b := newBench(root)
	observer := &seen{}
	b.options.Observer = observer
	published := Root{Verifier: root, Format: "Notary"}
	b.PutRoot("acme", published)
	b.Reset("acme", time.Minute)
	for _, k := range b.acme().dueNow() {
		<-k.start().done
	}
	renew := func() { // the outcome is what the observer has
		b.clock.Step(time.Minute)
		_ = b.Renew(t.Context(), key(app), b.clock.Now())
	}
	renew()
	renew()
	fault := trust.NewFault(v1alpha1.ReasonTimeout, "no answer")
	root.fetch = returning(nil, fault)
	renew()
	b.PutRoot("acme", published)
	root.fetch = returning(trust.Unsigned{}, nil)
	other := imageref.Ref{Host: "registry.example.com", Path: "acme/other"}
	if err := b.Ensure(t.Context(), key(other)); err != nil {
		t.Fatal(err)
	}
	root.recheck = func(trust.Evidence) (trust.Evidence, error) { return nil, fault }
	b.DropRoot("acme")
	want := []Verification{
		{Stage: StageProbe},
		{Stage: StageFirst},
		{Stage: StageRefresh},
		{Stage: StageRefresh, Fault: fault},
		{Stage: StageRecheck},
		{Stage: StageFirst, Unsigned: true},
	}
	for i := range want {
		want[i].Root, want[i].Format = "acme", "Notary"
	}
	same := cmp.Comparer(func(a, b *trust.Fault) bool { return a == b })
	if diff := cmp.Diff(want, observer.all, cmpopts.IgnoreFields(Verification{}, "Took"), same); diff != "" {
		t.Errorf("verifications (-want +got):\n%s", diff)
	}
}

func TestStatusTellsTheAgeOfEvidence(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(h) * time.Hour) }
	until := func(at time.Time) trust.Evidence {
		return &dated{fact{expires: at}, []trust.File{{Name: "timestamp.json", Kind: "timestamp", NotAfter: at}}}
	}
	root := &scripted{fetch: returning(until(at(9)), nil)}
	b := newBench(root)
	b.Reset("acme", time.Minute)
	began := b.clock.Now()
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(time.Hour)
	root.fetch = returning(until(at(7)), nil)
	other := imageref.Ref{Host: "registry.example.com", Path: "acme/other"}
	if err := b.Ensure(t.Context(), key(other)); err != nil {
		t.Fatal(err)
	}
	root.fetch = returning(trust.Unsigned{}, nil)
	b.clock.Step(-2 * time.Hour) // however long ago somebody asked for what is not signed
	if err := b.Ensure(t.Context(), key(imageref.Ref{Host: "registry.example.com", Path: "acme/made-up"})); err != nil {
		t.Fatal(err)
	}
	got := b.Status("acme")
	if !got.Oldest.Equal(began) || got.Interval != time.Minute {
		t.Errorf("oldest = %s, interval = %s, want %s and 1m0s", got.Oldest, got.Interval, began)
	}
	if diff := cmp.Diff(map[string]time.Time{"timestamp": at(7)}, got.Expiries); diff != "" {
		t.Errorf("expiries (-want +got):\n%s", diff)
	}
	if names := b.Load().RootNames(); !slices.Equal(names, []string{"acme"}) {
		t.Errorf("roots are %q", names)
	}
}
