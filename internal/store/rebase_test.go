package store

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A rotation may revoke what a proof rests on. It takes effect after rebaseTime, with a fault for
// all that is not verified by then, which is verified afterwards.
func TestThreatRotationTakesEffectInTime(t *testing.T) {
	b, m := basedBench(t)
	images := repositories(8)
	for _, image := range images {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	b.rebaseTime = 0
	var before, waiting atomic.Int32
	b.options.Changed = func() {
		if b.Load().roots["acme"].Verifier.(*based).base.version != 2 {
			return
		}
		n := count(b.Load(), images, v1alpha1.ReasonNotLoaded)
		waiting.CompareAndSwap(0, int32(n))
		for _, image := range images {
			if b.version(image) == 1 {
				before.Add(1)
			}
		}
	}
	m.serve(2, b.clock.Now().Add(24*time.Hour), nil)
	if err := b.renewBase(t); err != nil {
		t.Fatal(err)
	}
	b.passes(t, "the new base is in force", b.rebased)
	if got := waiting.Load(); got != int32(len(images)) || before.Load() > 0 {
		t.Errorf("%d of %d images could not be checked at first, and %d counted by the base before; want all, and 0",
			got, len(images), before.Load())
	}
	for _, image := range images {
		if got := b.version(image); got != 2 {
			t.Errorf("%s: got it verified with version %d, want 2", image, got)
		}
	}
}

// rebased reports whether no verification with a new base runs beside the fetch of the base.
func (b *bench) rebased() bool {
	of := b.track("acme")
	of.mu.Lock()
	defer of.mu.Unlock()
	return !of.rebasing
}

// A verification with a new base that an edit has overtaken ends, and the edit has the processors.
func TestRotationEndsWhereAnEditIsPublished(t *testing.T) {
	b, m := basedBench(t)
	images := repositories(64)
	for _, image := range images {
		if err := b.Ensure(t.Context(), key(image)); err != nil {
			t.Fatal(err)
		}
	}
	for name, late := range map[string]bool{"before it takes effect": false, "afterwards": true} {
		t.Run(name, func(t *testing.T) {
			b.rebaseTime = rebaseTime
			if late {
				b.rebaseTime = 0
			}
			var active, armed atomic.Bool
			var verified atomic.Int32
			edited := make(chan struct{})
			b.PutRoot("acme", Root{Version: "first", Verifier: &based{mirror: m, recheck: func() {
				switch {
				case !active.Load():
					return
				case armed.CompareAndSwap(true, false):
					b.PutRoot("acme", Root{Version: "edited", Verifier: &based{mirror: m}})
					close(edited)
				}
				<-edited
				verified.Add(1)
			}}})
			armed.Store(true)
			active.Store(true)
			m.mu.Lock()
			m.version++
			m.mu.Unlock()
			if err := b.renewBase(t); err != nil {
				t.Fatal(err)
			}
			b.passes(t, "the new base is in force", func() bool {
				return b.rebased() && count(b.Load(), images, v1alpha1.ReasonNotLoaded) == 0 &&
					b.version(images[0]) == m.version
			})
			if got, most := verified.Load(), int32(2*runtime.GOMAXPROCS(0)); got == 0 || got > most || armed.Load() {
				t.Errorf("%d of %d images were verified for the version that was replaced, want from 1 to %d", got,
					len(images), most)
			}
		})
	}
}

// Neither fetches that never cease nor many of them hold the store's lock for long.
func TestThreatPublicationsDoNotWaitForChanges(t *testing.T) {
	b := newBench(&scripted{fetch: returning(&fact{}, nil)})
	images := b.holdsMany(t)
	earlier := b.Load().Root("acme").Verifier
	edited, locked := &scripted{}, 0
	var mu sync.Mutex
	edited.recheck = func(held trust.Evidence) (trust.Evidence, error) {
		mu.Lock()
		defer mu.Unlock()
		if b.Load().Root("acme").Verifier == edited {
			return held, nil
		}
		if !b.writing.TryLock() {
			locked++
			<-time.After(lockedTime)
			return held, nil
		}
		b.writing.Unlock()
		for _, image := range images { // a fetch of each ends
			from := b.Load().evidence.get(key(image))
			_, _ = b.putEvidence(key(image), earlier, from, &cached{evidence: &fact{expires: b.clock.Now()}})
		}
		return held, nil
	}
	b.PutRoot("acme", Root{Verifier: edited})
	if locked != 1 {
		t.Errorf("%d repositories were verified under the store's lock, each for as long as it may be held; want 1",
			locked)
	}
	for _, image := range images {
		if _, _, err := b.Load().Evidence(key(image)); err != nil {
			t.Errorf("in the end: %v", err)
		}
	}
}
