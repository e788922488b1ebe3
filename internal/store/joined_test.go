package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/fair"
	"github.com/countersign-dev/countersign/internal/trust"
)

// One namespace begins the fetch of a repository that another one needs, and has used up its share
// of the host. The fetch then has the share of the other one, too. So it has where it was begun in
// the background.
func TestThreatFetchBegunByAnotherNamespace(t *testing.T) {
	for name, begin := range map[string]func(b *bench){
		"flood": func(b *bench) {
			gone, leave := context.WithCancel(from(t.Context(), "flood"))
			leave()
			_ = b.Ensure(gone, key(app))
		},
		trust.BackgroundShare: func(b *bench) { b.fetching(key(app)) },
	} {
		t.Run(name, func(t *testing.T) {
			host := fair.NewSemaphore(3, 0)
			for range 2 {
				if err := host.Acquire(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			waits := make(chan struct{})
			var once sync.Once
			b := newBench(&scripted{fetch: func(ctx context.Context, _ trust.Evidence) (trust.Evidence, error) {
				once.Do(func() { close(waits) })
				share, err := host.AcquireAny(ctx, trust.PurposeOf(ctx).Shares())
				if err != nil {
					return nil, err
				}
				host.Release(share)
				return &fact{}, nil
			}})
			begin(b)
			<-waits
			ctx, cancel := context.WithTimeout(from(t.Context(), "other"), 10*time.Second)
			defer cancel()
			if err := b.Ensure(ctx, key(app)); err != nil {
				t.Errorf("got %v, want it fetched for the namespace that has a free share", err)
			}
			if n := b.Load().Root("acme").Verifier.(*scripted).fetches.Load(); n != 1 {
				t.Errorf("got %d fetches, want one", n)
			}
		})
	}
}

// The trial fetches from a down host go round the namespaces that want something from it, however
// many names one of them has made up.
func TestThreatTrialsGoRoundTheNamespaces(t *testing.T) {
	o := newOutage()
	var mu sync.Mutex
	var fetched []string
	o.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		mu.Lock()
		defer mu.Unlock()
		fetched = append(fetched, repository)
		return nil, refused
	}
	b := newBench(o)
	b.Reset("acme", time.Minute)
	o.is(refused, refused)
	request := func(namespace string, n int) {
		for i := range n {
			gone, leave := context.WithCancel(from(t.Context(), namespace))
			leave()
			_ = b.Ensure(gone, madeUp(namespace, i))
		}
	}
	request("flood", 40)
	eventually(t, "the host is down", func() bool {
		b.pass(time.Second)
		return b.acme().outage(madeUp("flood", 0).Subject) != nil
	})
	request("other", 1)
	mu.Lock()
	fetched = nil
	mu.Unlock()
	b.pass(3 * lastProbe)
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(fmt.Sprint(fetched), "other") || len(fetched) > 4 {
		t.Errorf("got the trials %v, want a few, with one for the other namespace", fetched)
	}
}
