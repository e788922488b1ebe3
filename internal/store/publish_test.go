package store

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// An edit may revoke a key. It takes effect after a few repositories are verified again, however
// long the verification of all takes. Until then, the others could not be checked.
func TestThreatEditDoesNotWaitForEveryRepository(t *testing.T) {
	t.Run("nothing refused", func(t *testing.T) { testEditDoesNotWait(t, nil) })
	t.Run("a record refused before", func(t *testing.T) { testEditDoesNotWait(t, map[string][]byte{"refused": {1}}) })
}

func testEditDoesNotWait(t *testing.T, saved map[string][]byte) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	images := b.holdsMany(t)
	var early atomic.Int32
	edited := &scripted{unpack: func([]byte, trust.Evidence) (trust.Evidence, error) { return nil, refused }}
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if b.Load().Root("acme").Verifier == edited {
			return held, nil
		}
		early.Add(1)
		<-time.After(recheckTime)
		return held, nil
	}
	var waiting int
	b.options.Changed = func() {
		if b.Load().Root("acme").Verifier == edited && waiting == 0 {
			waiting = count(b.Load(), images, v1alpha1.ReasonNotLoaded)
		}
	}
	_, _ = b.PutRootWith("acme", Root{Verifier: edited}, written(saved), never)
	if most := int32(2 * runtime.GOMAXPROCS(0)); early.Load() > most {
		t.Errorf("%d of %d repositories were verified before the edit took effect, want at most %d", early.Load(),
			len(images), most)
	}
	if want := len(images) - int(early.Load()); waiting != want {
		t.Errorf("%d repositories could not be checked at first, want %d", waiting, want)
	}
	for _, image := range images {
		if _, _, err := b.Load().Evidence(key(image)); err != nil {
			t.Errorf("in the end: %v", err)
		}
	}
}

// A fetch may bring newer evidence while an edit verifies the older evidence.
func TestEditDoesNotUndoAFetch(t *testing.T) {
	newer := &fact{}
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	images := b.holdsMany(t)
	edited := &scripted{fetch: returning(newer, nil)}
	var fetched atomic.Bool
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		switch {
		case b.Load().Root("acme").Verifier != edited:
			<-time.After(recheckTime)
		case fetched.CompareAndSwap(false, true):
			for _, image := range images {
				if err := b.Ensure(t.Context(), key(image)); err != nil {
					t.Error(err)
				}
			}
		}
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited})
	var fresh int
	for _, image := range images {
		if e, _, err := b.Load().Evidence(key(image)); err == nil && e == newer {
			fresh++
		}
	}
	if fresh == 0 || !fetched.Load() {
		t.Errorf("%d repositories have what was fetched (any fetch: %t), want some", fresh, fetched.Load())
	}
}

// While the signing server is down, a request may fetch evidence that an edit has not verified yet.
// The fetch fails, but the edit must still verify the earlier evidence.
func TestEditIsFinishedThoughFetchesFail(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	images := b.holdsMany(t)
	edited := &scripted{fetch: returning(nil, refused)}
	var asked sync.Once
	failed := 0
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if b.Load().Root("acme").Verifier != edited {
			<-time.After(recheckTime)
			return held, nil
		}
		asked.Do(func() {
			for _, image := range images {
				if b.Ensure(t.Context(), key(image)) != nil {
					failed++
				}
			}
		})
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited})
	if failed == 0 {
		t.Fatal("no fetch failed in between")
	}
	for _, image := range images {
		if _, _, err := b.Load().Evidence(key(image)); err != nil {
			t.Errorf("in the end: %v", err)
		}
	}
}

// The next edit may revoke a key. It does not wait until the earlier edit has verified everything.
func TestThreatEditDoesNotWaitForTheOneBefore(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	images := b.holdsMany(t)
	var late atomic.Int32
	edited := &scripted{}
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if b.Load().Root("acme").Verifier == edited {
			late.Add(1)
		} else {
			<-time.After(recheckTime)
		}
		return held, nil
	}
	_, _ = b.PutRootWith("acme", Root{Verifier: edited}, written(nil), func() bool { return late.Load() > 0 })
	if most := int32(runtime.GOMAXPROCS(0)); late.Load() == 0 || late.Load() > most {
		t.Errorf("%d repositories were verified for an edit that was outdated after the first, want at most %d",
			late.Load(), most)
	}
	b.PutRoot("acme", Root{Verifier: &scripted{}})
	for _, image := range images {
		if _, _, err := b.Load().Evidence(key(image)); err != nil {
			t.Errorf("after the next edit: %v", err)
		}
	}
}

func never() bool { return false }

// Evidence that changes while an edit verifies it is verified again before the edit takes effect,
// and without the store's lock: other publications go on meanwhile.
func TestEditVerifiesWithoutTheLock(t *testing.T) {
	newer := &fact{}
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	var verified []trust.Evidence
	earlier := b.Load().Root("acme").Verifier
	edited := &scripted{}
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if !b.writing.TryLock() {
			t.Error("evidence is verified under the store's lock")
			return held, nil
		}
		b.writing.Unlock()
		if verified = append(verified, held); len(verified) == 1 { // a fetch under the earlier root ends now
			from := b.Load().evidence.get(key(app))
			if published, _ := b.putEvidence(key(app), earlier, from, &cached{evidence: newer}); !published {
				t.Error("the fetch was not published")
			}
		}
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited})
	if len(verified) != 2 || verified[1] != trust.Evidence(newer) {
		t.Errorf("verified %d times, want 2: the second time what was fetched", len(verified))
	}
	if got, _, err := b.Load().Evidence(key(app)); err != nil || got != trust.Evidence(newer) {
		t.Errorf("evidence %v, error %v; want what was fetched", got, err)
	}
}

// An edit may revoke a key. Evidence that changes each time before the edit takes effect, as when
// an attacker keeps fetches busy, must not postpone the edit for ever.
func TestThreatEditIsNotPostponedByFetches(t *testing.T) {
	const enough = 1000
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	earlier := b.Load().Root("acme").Verifier
	edited, fetches := &scripted{}, 0
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		if fetches == enough || !b.writing.TryLock() {
			return held, nil
		}
		b.writing.Unlock()
		fetches++ // under the earlier root
		from := b.Load().evidence.get(key(app))
		if published, _ := b.putEvidence(key(app), earlier, from,
			&cached{evidence: &fact{expires: b.clock.Now().Add(time.Hour)}}); !published {
			t.Error("the fetch was not published")
		}
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited})
	if fetches == 0 || fetches > recheckAttempts {
		t.Errorf("%d fetches postponed the edit, want from 1 to %d", fetches, recheckAttempts)
	}
	last := b.Load().evidence.get(key(app))
	if last == nil || last.fault != nil || last.evidence.(*fact).expires.IsZero() {
		t.Errorf("evidence %+v, want what the last fetch brought, verified under the edited root", last)
	}
}

// holdsMany fetches more repositories than are verified in one batch.
func (b *bench) holdsMany(t *testing.T) []imageref.Ref {
	t.Helper()
	images := make([]imageref.Ref, 4*runtime.GOMAXPROCS(0)+1)
	for i := range images {
		images[i] = imageref.Ref{Host: "registry.example.com", Path: fmt.Sprintf("acme/app-%d", i), Tag: "v1"}
		if err := b.Ensure(t.Context(), key(images[i])); err != nil {
			t.Fatal(err)
		}
	}
	return images
}

// count returns how many images have a fault of a reason.
func count(s *Snapshot, images []imageref.Ref, reason string) (n int) {
	for _, image := range images {
		_, _, err := s.Evidence(key(image))
		var f *trust.Fault
		if errors.As(err, &f) && f.Reason == reason {
			n++
		}
	}
	return n
}
