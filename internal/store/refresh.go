package store

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/imageref"
)

// inBackground bounds the fetches of one kind of turn that Run has under way at once. What is due beyond waits its turn where
// it costs nothing, so that none runs out of time in the queue, and whoever asks on demand has only these before it.
const inBackground = 4 * fetchesPerRoot

// turn is what fetches in the background take turns at: those of repositories known to be signed, and of the others, each.
type turn struct {
	root  string
	known bool
}

func (t *Tracker) turn(k Key) turn {
	return turn{root: k.Root, known: signed(t.store.Load().evidence[k])}
}

// Retain says which images run, by the trust root that they are checked against, in place of what it was told before. Their
// repositories are fetched in the background, kept up to date, and not forgotten. Trust roots that cannot be used are passed over.
func (t *Tracker) Retain(images map[string][]imageref.Ref) {
	snapshot := t.store.Load()
	retained := map[Key]bool{}
	for root, refs := range images {
		if snapshot.Usable(root) != nil {
			continue
		}
		for _, ref := range refs {
			retained[snapshot.key(root, ref)] = true
		}
	}
	now := t.clock.Now()
	missing := false
	t.mu.Lock()
	t.retained = retained
	for k := range retained {
		if t.tracked[k] == nil {
			t.entry(k, now).due = now
			missing = true
		}
	}
	t.mu.Unlock()
	if missing {
		t.wake()
	}
}

// wake has Run look for what is due now.
func (t *Tracker) wake() {
	select {
	case t.woken <- struct{}{}:
	default: // it is told already
	}
}

// Run refreshes what is due until ctx ends. It does not wait for fetches under way; they are bounded.
func (t *Tracker) Run(ctx context.Context) error {
	ticker := t.clock.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			t.prune()
		case <-t.woken:
		}
		for _, k := range t.dueNow() {
			t.refresh(k)
		}
	}
}

// dueNow returns what is to be refreshed now and whose turn it is: what is due the longest comes first.
func (t *Tracker) dueNow() []Key {
	now := t.clock.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []Key
	taken := map[turn]int{}
	for k, e := range t.tracked {
		switch {
		case e.flight != nil && e.flight.turn != nil:
			taken[*e.flight.turn]++
		case e.flight == nil && !e.due.After(now):
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b Key) int { return t.tracked[a].due.Compare(t.tracked[b].due) })
	return slices.DeleteFunc(due, func(k Key) bool {
		if k == probe(k.Root) {
			return false
		}
		its := t.turn(k)
		taken[its]++
		return taken[its] > inBackground
	})
}

// refresh starts a fetch in the background, or joins the one under way.
func (t *Tracker) refresh(k Key) *flight {
	now, turn := t.clock.Now(), t.turn(k)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(k, now)
	if e.flight != nil {
		return e.flight
	}
	e.due = now.Add(fetchTimeout) // moved on by the outcome
	return t.begin(k, e, now, &turn)
}

// jitter returns a duration from 80 % to the whole of d.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Float64()*float64(d)/5) //nolint:gosec // spreads load, guards nothing
}
