package store

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// PutRoot publishes a trust root under its name. The new root verifies again the evidence that an
// earlier root of the name obtained; evidence that fails becomes a fault.
func (s *Store) PutRoot(name string, r Root) {
	nothing := func(func(trust.Subject, []byte)) error { return nil }
	_, _ = s.PutRootWith(name, r, nothing, func() bool { return false }) // only saved can fail
}

// recheckTime is how long the publication of an edited trust root waits for repositories to be
// verified again. The others become faults until they are verified, so that a revoked key stops
// counting soon, however many repositories there are.
const recheckTime = 500 * time.Millisecond

// rebaseTime bounds the verification with a new base: of evidence that was not verified by then the
// proof may rest on what the new base has revoked. So it becomes a fault until it is verified.
const rebaseTime = 30 * time.Second

// lockedTime bounds the verification under the store's lock, during which nothing else is
// published.
const lockedTime = 100 * time.Millisecond

// recheckAttempts is how often a publication tries to publish evidence that did not change while it
// was verified. Only the few fetches that can end during one attempt concern the next.
const recheckAttempts = 5

// savedConcurrency bounds how many repositories from records are verified at the same time.
const savedConcurrency = 4

// Saved calls take with the record of each repository, one after the other, beginning with that of
// the root's base. take keeps the bytes, and may block until another repository is verified.
type Saved func(take func(repository trust.Subject, packed []byte)) error

// PutRootWith is PutRoot with records. It verifies the records before the root can be used, so that
// nothing older is ever accepted under it. It returns the faults of the records that could not be
// verified, by repository. Once outdated reports that another root will replace this one, it leaves
// the remaining repositories to that. The error is that of saved; nothing is published then.
func (s *Store) PutRootWith(name string, r Root, saved Saved, outdated func() bool) (map[trust.Subject]*trust.Fault,
	error) {
	p := publication{
		store: s, name: name, root: &r, saved: saved, faults: map[trust.Subject]*trust.Fault{}, clock: time.Now,
		within: recheckTime, parallel: runtime.GOMAXPROCS(0),
	}
	if err := p.recheckAll(s.Load()); err != nil {
		return nil, err
	}
	keys, _ := p.publish()
	for _, k := range keys {
		s.moved(k)
	}
	p.recheckPending(outdated)
	return p.faults, nil
}

func (s *Store) moved(k trust.Key) {
	if s.options.Moved != nil {
		s.options.Moved(k)
	}
}

// publication verifies the evidence under a new root, and publishes both in one snapshot.
type publication struct {
	store *Store
	name  string
	root  *Root
	saved Saved
	// replaces is the root that must be in use, so that only its base changes. Nil: any may be.
	replaces *Root
	clock    func() time.Time // by which a base expires
	within   time.Duration    // how long held evidence is verified before the root takes effect
	parallel int              // how many subjects are verified at one time

	mu      sync.Mutex
	size    int64 // of results
	results map[trust.Key]rechecked
	pending map[trust.Key]rechecked // published as faults, and verified afterwards
	faults  map[trust.Subject]*trust.Fault
}

// rechecked is the state of one subject before and after it was verified under the new root. Either
// may be nil: nothing is held. saved says that the record of its repository was read.
type rechecked struct {
	from, to *cached
	saved    bool
}

// publish publishes the root with the verified evidence, and returns the subjects that have any. It
// reports false, and publishes nothing, where the root is not in use that it must replace. Where
// evidence has changed since it was verified, it verifies that again first, without the
// store's lock; in the last of recheckAttempts with the lock, for lockedTime, so that fetches that
// never cease cannot postpone an edit that revokes a key.
func (p *publication) publish() (keys []trust.Key, published bool) {
	for attempt := 1; ; attempt++ {
		var from *Snapshot
		var changed map[trust.Key]bool
		p.store.update(func(old *Snapshot) *Snapshot {
			if published = p.replaces == nil || p.replaces == old.roots[p.name]; !published {
				return nil
			}
			if from, changed = old, p.changed(old); len(changed) > 0 {
				if attempt < recheckAttempts {
					return nil
				}
				p.recheckChanged(old, changed, time.Now().Add(lockedTime))
				changed = nil
			}
			next := *old
			next.roots = maps.Clone(old.roots)
			if next.roots == nil {
				next.roots = map[string]*Root{}
			}
			next.roots[p.name] = p.root
			keys = p.evidence(old, &next)
			return &next
		})
		if !published || len(changed) == 0 {
			return keys, published
		}
		p.recheckChanged(from, changed, time.Now().Add(p.within))
	}
}

// recheckChanged verifies repositories once more, and postpones those that it cannot verify until a
// time.
func (p *publication) recheckChanged(from *Snapshot, changed map[trust.Key]bool, until time.Time) {
	earlier := from.roots[p.name]
	for repository := range changed {
		held := maps.Collect(from.evidence.of(repository))
		if repository.Subject == trust.BaseSubject || time.Now().Before(until) || p.restored(repository) {
			p.recheckRepository(repository, earlier, held)
			continue
		}
		for k, h := range held {
			delete(p.pending, k)
			if h.evidence == nil {
				p.results[k] = rechecked{from: h, to: p.recheck(k, earlier, h)}
				continue
			}
			p.pending[k] = p.postponed(k, h, earlier)
			p.results[k] = p.pending[k]
		}
	}
}

// restored reports whether the record of a repository was read.
func (p *publication) restored(repository trust.Key) bool {
	for k, c := range p.results {
		if c.saved && k.InRepository() == repository {
			return true
		}
	}
	return false
}

// changed returns the repositories whose evidence is other than what was verified.
func (p *publication) changed(now *Snapshot) map[trust.Key]bool {
	if p.root.Verifier == nil {
		return nil // it verifies nothing
	}
	changed := map[trust.Key]bool{}
	for k, h := range now.evidence.under(p.name) {
		if c, ok := p.results[k]; !ok || c.from != h {
			changed[k.InRepository()] = true
		}
	}
	return changed
}

// evidence replaces the root's evidence in the next snapshot, and returns the subjects that have
// any; the store's lock is held. Where not all fits, it prefers small evidence.
func (p *publication) evidence(old, next *Snapshot) []trust.Key {
	next.evidence = old.evidence.clone()
	if p.root.Verifier == nil {
		for k, h := range old.evidence.under(p.name) {
			if earlier := old.roots[p.name]; earlier != nil && earlier.Epoch != p.root.Epoch {
				next.set(k, &cached{evidence: h.evidence, fault: h.fault, anew: true, withdrawn: h.withdrawn})
			}
		}
		return nil
	}
	keys := slices.SortedFunc(maps.Keys(p.results), func(a, b trust.Key) int {
		return cmp.Or(cmp.Compare(p.results[a].to.size(), p.results[b].to.size()), a.Compare(b))
	})
	var held []trust.Key
	for _, k := range keys {
		c := p.results[k]
		to, fault := p.store.fitting(k, next, old.evidence.get(k), c.to)
		if fault != nil {
			p.fail(k, fault)
			to = p.unverified(k, c.from, old.roots[p.name], fault)
		}
		if next.set(k, to); to != nil {
			held = append(held, k)
		}
	}
	return held
}
