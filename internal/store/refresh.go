package store

import (
	"context"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// inBackground bounds the fetches of one kind of turn that Run has under way at once. What is due beyond waits its turn where it
	// costs nothing, and the other half of the places is free for whoever asks on demand.
	inBackground = fetchesPerRoot / 2
	// maxRetainedUnsigned bounds the repositories of one trust root that are retained and are not known to be signed: Pods may name any.
	maxRetainedUnsigned = 2000
)

// turn is what fetches in the background take turns at: those of repositories known to be signed, and of the others, each.
type turn struct {
	root  string
	known bool
}

func (s *Snapshot) turn(k trust.Key) turn {
	return turn{root: k.Root, known: signed(s.evidence.get(k))}
}

// Retain says what the images that run are checked against, in place of what it was told before. It is fetched in the
// background, kept up to date, and not forgotten. Trust roots that cannot be used are passed over.
// Of a root's subjects that are not known to be signed at most 2,000 are retained, those first that were before; it
// returns how many are not.
func (t *Tracker) Retain(subjects []trust.Key) (beyond int) {
	snapshot := t.store.Load()
	wanted := map[trust.Key]bool{}
	for _, k := range subjects {
		if snapshot.Usable(k.Root) == nil {
			wanted[k] = true
		}
	}
	now := t.clock.Now()
	missing := false
	t.mu.Lock()
	t.retained, beyond = t.choose(snapshot, wanted)
	for k := range t.retained {
		if t.tracked[k] == nil {
			t.entry(k, now).due = now
			missing = true
		}
	}
	t.mu.Unlock()
	if missing {
		t.wake()
	}
	return beyond
}

// choose returns which of the wanted subjects are retained, and how many are not; the lock is held.
func (t *Tracker) choose(snapshot *Snapshot, wanted map[trust.Key]bool) (retained map[trust.Key]bool, beyond int) {
	retained = map[trust.Key]bool{}
	unsigned := map[string]int{} // by root
	var further []trust.Key
	for k := range wanted {
		switch known := signed(snapshot.evidence.get(k)); {
		case known:
			retained[k] = true
		case t.retained[k] && unsigned[k.Root] < maxRetainedUnsigned: // some may have been signed once, and are no more
			retained[k] = true
			unsigned[k.Root]++
		default:
			further = append(further, k)
		}
	}
	for _, k := range further {
		if unsigned[k.Root] == maxRetainedUnsigned {
			beyond++
			continue
		}
		retained[k] = true
		unsigned[k.Root]++
	}
	return retained, beyond
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
		t.readFeeds()
		for _, k := range t.dueNow() {
			t.refresh(k)
		}
	}
}

// dueNow returns what is to be refreshed now and whose turn it is: what is due the longest comes first. Where every turn is taken it
// looks at nothing, and otherwise once at each repository. Of a server that is down only the probe is due, and now and
// then one repository: the one due the longest, of those known to be signed where there are any, since anybody can name others.
func (t *Tracker) dueNow() []trust.Key {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []trust.Key
	room := false
	for root, p := range t.roots {
		if e := t.tracked[probe(root)]; e != nil && e.probeable(now) && !e.due.After(now) {
			due = append(due, probe(root))
		}
		room = room || p.tryable(now) || p.down == nil && (t.taken[turn{root, true}] < inBackground || t.taken[turn{root, false}] < inBackground)
	}
	if !room {
		return due
	}
	oldest, trials := map[turn][]trust.Key{}, map[turn][]trust.Key{}
	for k, e := range t.tracked {
		p := t.pace(k.Root)
		if e.flight != nil || k == probe(k.Root) || p.down == nil && t.dueAt(k, e).After(now) {
			continue
		}
		its := snapshot.turn(k)
		if p.down == nil {
			oldest[its] = t.insert(oldest[its], k, inBackground-t.taken[its])
		} else if p.tryable(now) {
			trials[its] = t.insert(trials[its], k, 1)
		}
	}
	for its, keys := range trials {
		if its.known || trials[turn{its.root, true}] == nil {
			t.pace(its.root).tried = now
			oldest[its] = keys
		}
	}
	for _, keys := range oldest {
		due = append(due, keys...)
	}
	return due
}

// insert puts k among the keys that are due the longest, of which it keeps as many as there is room for; the lock is held.
func (t *Tracker) insert(keys []trust.Key, k trust.Key, room int) []trust.Key {
	at, due := len(keys), t.dueAt(k, t.tracked[k])
	for at > 0 && due.Before(t.dueAt(keys[at-1], t.tracked[keys[at-1]])) {
		at--
	}
	if at >= room {
		return keys
	}
	keys = slices.Insert(keys, at, k)
	return keys[:min(len(keys), room)]
}

// refresh starts a fetch in the background, or joins the one under way.
func (t *Tracker) refresh(k trust.Key) *flight {
	now := t.clock.Now()
	var its *turn
	if k != probe(k.Root) {
		its = new(t.store.Load().turn(k))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(k, now)
	if e.flight != nil {
		return e.flight
	}
	e.due = now.Add(fetchTimeout) // moved on by the outcome
	return t.begin(k, e, now, its)
}

// land notes the end of a fetch. Run is woken when so many turns are free that a look at everything is worth it.
func (t *Tracker) land(e *tracked, f *flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.flight, e.fetched = nil, f.began
	if f.asked != nil {
		f.asked.asked--
	}
	if f.turn == nil {
		return
	}
	t.taken[*f.turn]--
	if left := t.taken[*f.turn]; left < inBackground/2 {
		t.wake()
	}
	if t.taken[*f.turn] == 0 {
		delete(t.taken, *f.turn)
	}
}
