package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const appRepository = "registry.example.com/acme/app"

// The first snapshot with a root has its restored evidence. No request finds the root without it.
func TestRestoredBeforeTheRootCanBeUsed(t *testing.T) {
	kept := &fact{}
	root := &scripted{unpack: func([]byte, trust.Evidence) (trust.Evidence, error) { return kept, nil }}
	b := newBench(&scripted{})
	b.DropRoot("acme")
	bare := false
	b.options.Changed = func() {
		if e, _, err := b.Load().Evidence(key(app)); b.Load().Root("acme") != nil && (e != kept || err != nil) {
			bare = true
		}
	}
	if faults, err := b.PutRootWith("acme", Root{Verifier: root}, written(map[string][]byte{appRepository: {1}}),
		never); len(faults) > 0 || err != nil {
		t.Fatal(faults, err)
	}
	b.holds(t, kept)
	if bare {
		t.Error("a snapshot has the root, and not what was written down")
	}
	b.Reset("acme", time.Hour)
	if n := b.Status("acme").Tracked; n != 1 {
		t.Errorf("%d repositories are tracked, want the one that was restored", n)
	}
}

// Recorded evidence that does not verify is a fault. The next fetch must still have no older
// versions.
func TestThreatRestoredFaultKeepsTheVersionsSeen(t *testing.T) {
	seen, next := &fact{}, &fact{}
	var given trust.Evidence
	root := &scripted{
		unpack: func([]byte, trust.Evidence) (trust.Evidence, error) {
			return seen, trust.NewFault(v1alpha1.ReasonMetadataExpired, "expired")
		},
		fetch: func(_ context.Context, held trust.Evidence) (trust.Evidence, error) {
			given = held
			return next, nil
		},
	}
	b := newBench(&scripted{})
	faults, err := b.PutRootWith("acme", Root{Verifier: root}, written(map[string][]byte{appRepository: {1}}), never)
	if len(faults) != 1 || err != nil {
		t.Errorf("faults are %v, error %v", faults, err)
	}
	b.faults(t, v1alpha1.ReasonMetadataExpired)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	if given != seen {
		t.Errorf("the fetch goes on from %v, want the versions seen", given)
	}
	b.holds(t, next)
}

// Invalid data, even data that makes its reader panic, does not change the evidence in use.
func TestThreatUnusableDataLeavesWhatIsHeld(t *testing.T) {
	for name, unpack := range map[string]func([]byte, trust.Evidence) (trust.Evidence, error){
		"fault": func([]byte, trust.Evidence) (trust.Evidence, error) { return nil, errors.New("no such format") },
		"panic": func([]byte, trust.Evidence) (trust.Evidence, error) { panic("index out of range") },
	} {
		t.Run(name, func(t *testing.T) {
			kept := &fact{}
			b := newBench(&scripted{fetch: returning(kept, nil), unpack: unpack})
			k := acmeKey(appRepository)
			if err := b.Restore(k, b.Load().Root("acme"), []byte{1}); err == nil {
				t.Error("Restore succeeds")
			}
			if _, _, err := b.Load().Evidence(key(app)); err == nil {
				t.Error("unusable data is evidence")
			}
			if err := b.Ensure(t.Context(), key(app)); err != nil {
				t.Fatal(err)
			}
			if err := b.Restore(k, b.Load().Root("acme"), []byte{1}); err == nil {
				t.Error("Restore succeeds")
			}
			b.holds(t, kept)
		})
	}
}

// If newer evidence is restored while a fetch is in flight, the fetch starts again from it.
func TestThreatFetchDoesNotUndoARestore(t *testing.T) {
	older, newer, latest := &fact{}, &fact{}, &fact{}
	asked, release := make(chan struct{}, 2), make(chan struct{})
	root := &scripted{
		fetch: func(_ context.Context, held trust.Evidence) (trust.Evidence, error) {
			if held == trust.Evidence(newer) {
				return latest, nil
			}
			asked <- struct{}{}
			<-release
			return older, nil
		},
		unpack: func([]byte, trust.Evidence) (trust.Evidence, error) { return newer, nil },
	}
	b := newBench(root)
	done := make(chan error, 1)
	go func() { done <- b.Ensure(t.Context(), key(app)) }()
	<-asked
	if err := b.Restore(acmeKey(appRepository), b.Load().Root("acme"), []byte{1}); err != nil {
		t.Fatal(err)
	}
	b.holds(t, newer)
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.holds(t, latest)
}

// In a new epoch the next fetch ignores the versions seen. Until then the earlier evidence stays in
// use. A record of the earlier epoch does not restore it.
func TestEpochStartsVersionsAnew(t *testing.T) {
	kept, next := &fact{}, &fact{}
	root := &scripted{
		fetch: returning(kept, nil), unpack: func([]byte, trust.Evidence) (trust.Evidence, error) { return kept, nil },
	}
	b := newBench(root)
	if err := b.Ensure(t.Context(), key(app)); err != nil {
		t.Fatal(err)
	}
	k := acmeKey(appRepository)
	before := b.Load().Root("acme")
	given := []trust.Evidence{}
	outage := errors.New("no answer")
	edited := &scripted{fetch: func(_ context.Context, held trust.Evidence) (trust.Evidence, error) {
		given = append(given, held)
		if outage != nil {
			return nil, outage
		}
		return next, nil
	}}
	b.PutRoot("acme", Root{Fault: trust.NewFault(v1alpha1.ReasonInvalidKey, "gone for a moment"), Epoch: "1"})
	b.PutRoot("acme", Root{Verifier: edited, Epoch: "1"})
	b.PutRoot("acme", Root{Verifier: edited, Epoch: "1", Version: "edited again"})
	if err := b.Restore(k, before, []byte{1}); !errors.Is(err, ErrReplaced) {
		t.Errorf("what was written down under the epoch before is taken in: %v", err)
	}
	b.holds(t, kept)
	if b.Load().Verified(k) != nil {
		t.Error("what is to start anew is worth writing down")
	}
	if err := b.Renew(t.Context(), key(app), b.clock.Now().Add(time.Second)); err == nil {
		t.Error("Renew succeeds without a server")
	}
	b.holds(t, kept)
	outage = nil
	b.clock.Step(time.Minute)
	if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	b.holds(t, next)
	for _, held := range given {
		if held != nil {
			t.Errorf("a fetch goes on from %v, want first sight", held)
		}
	}
	if b.Load().Verified(k)[k.Subject] != next {
		t.Error("what was fetched anew is not worth writing down")
	}
}

func TestMovedTellsOfOtherEvidence(t *testing.T) {
	kept := &fact{}
	b := newBench(&scripted{fetch: returning(kept, nil)})
	var moved []trust.Key
	b.options.Moved = func(k trust.Key) { moved = append(moved, k) }
	for range 3 {
		if err := b.Renew(t.Context(), key(app), b.clock.Now()); err != nil {
			t.Fatal(err)
		}
		b.clock.Step(time.Minute)
	}
	if len(moved) != 1 || moved[0] != (acmeKey(appRepository)) {
		t.Errorf("moved are %v, want one repository once", moved)
	}
}

func TestLastUsed(t *testing.T) {
	kept := &fact{}
	b := newBench(&scripted{unpack: func([]byte, trust.Evidence) (trust.Evidence, error) { return kept, nil }})
	k := acmeKey(appRepository)
	if err := b.Restore(k, b.Load().Root("acme"), []byte{1}); err != nil {
		t.Fatal(err)
	}
	if at := b.LastUsed(k); !at.IsZero() {
		t.Errorf("used at %v, though nobody asked", at)
	}
	b.clock.Step(time.Hour)
	b.holds(t, kept)
	asked := b.clock.Now()
	if at := b.LastUsed(k); !at.Equal(asked) {
		t.Errorf("used at %v, want %v", at, asked)
	}
	b.clock.Step(time.Hour)
	if at := b.LastUsed(k); !at.Equal(asked) {
		t.Errorf("used at %v, want it to stay %v", at, asked)
	}
	b.Release(k)
	if _, _, err := b.Load().Evidence(key(app)); err == nil || b.Status("acme").Tracked != 0 {
		t.Error("it is held after its release")
	}
}

// written has recorded evidence by repository.
func written(records map[string][]byte) Saved {
	return func(take func(trust.Subject, []byte)) error {
		for repository, packed := range records {
			take(acmeKey(repository).Subject, packed)
		}
		return nil
	}
}

// If the records cannot be read, nothing changes: the root is not published without its records.
func TestNothingIsPublishedWithoutItsRecords(t *testing.T) {
	b := newBench(&scripted{})
	b.DropRoot("acme")
	unreadable := errors.New("the API server is gone")
	_, err := b.PutRootWith("acme", Root{Verifier: &scripted{}},
		func(func(trust.Subject, []byte)) error { return unreadable }, never)
	if !errors.Is(err, unreadable) || b.Load().Root("acme") != nil {
		t.Errorf("got error %v, and root %v", err, b.Load().Root("acme"))
	}
}

// A record that adds nothing to what is held does not make that usable again: if it was not
// verified under the present root, or if the server has ended it.
func TestThreatRecordRevivesNothing(t *testing.T) {
	kept := &fact{}
	adds := func(_ []byte, held trust.Evidence) (trust.Evidence, error) { return held, nil }
	refused := trust.NewFault(v1alpha1.ReasonMetadataInvalid, "the key is revoked")
	for name, c := range map[string]struct {
		end    func(b *bench)
		reason string
	}{
		"refused under the present root": {func(b *bench) {
			root := &scripted{
				recheck: func(trust.Evidence) (trust.Evidence, error) { return nil, refused }, unpack: adds,
			}
			if _, err := b.PutRootWith("acme", Root{Verifier: root}, written(nil), never); err != nil {
				t.Fatal(err)
			}
		}, v1alpha1.ReasonMetadataInvalid},
		"refused, with the record read beside": {func(b *bench) {
			root := &scripted{
				recheck: func(trust.Evidence) (trust.Evidence, error) { return nil, refused }, unpack: adds,
			}
			if _, err := b.PutRootWith("acme", Root{Verifier: root}, written(map[string][]byte{appRepository: {1}}),
				never); err != nil {
				t.Fatal(err)
			}
		}, v1alpha1.ReasonMetadataInvalid},
		"verification panics": {func(b *bench) {
			root := &scripted{recheck: func(trust.Evidence) (trust.Evidence, error) { panic("hostile") }, unpack: adds}
			if _, err := b.PutRootWith("acme", Root{Verifier: root}, written(nil), never); err != nil {
				t.Fatal(err)
			}
		}, v1alpha1.ReasonMetadataInvalid},
		"ended by the server": {func(b *bench) {
			b.Load().Root("acme").Verifier.(*scripted).fetch = returning(nil, &trust.Fault{
				Reason: v1alpha1.ReasonUnauthorized, Err: errors.New("refused"), Ends: true,
			})
			_ = b.Renew(t.Context(), key(app), b.clock.Now().Add(time.Second))
		}, v1alpha1.ReasonUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(&scripted{fetch: returning(kept, nil), unpack: adds})
			if err := b.Ensure(t.Context(), key(app)); err != nil {
				t.Fatal(err)
			}
			b.clock.Step(time.Minute)
			c.end(b)
			b.faults(t, c.reason)
			_ = b.Restore(acmeKey(appRepository), b.Load().Root("acme"), []byte{1})
			b.faults(t, c.reason)
		})
	}
}
