package store

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
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

// recheckAll verifies the root's repositories, as many at once as there are processors: all that
// have a record, and of the others those that it can within recheckTime. It holds in memory only
// the records that it is verifying. The error is that of saved.
func (p *publication) recheckAll(old *Snapshot) error {
	p.results, p.pending = map[trust.Key]rechecked{}, map[trust.Key]rechecked{}
	if p.root.Verifier == nil {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(min(runtime.GOMAXPROCS(0), savedConcurrency))
	seen, earlier := map[trust.Key]bool{}, old.roots[p.name]
	base := baseOf(p.name)
	_, based := p.root.based()
	seen[base] = true
	p.recheckBase(base, old)
	err := p.saved(func(repository trust.Subject, packed []byte) {
		k := trust.Key{Root: p.name, Subject: repository}
		if k == base {
			_ = g.Wait() // no function returns an error
			if based {
				p.restore(base, earlier, maps.Collect(old.evidence.of(base)), packed)
				p.root = p.root.on(p.results[base].to, p.clock())
			}
			return
		}
		seen[k] = true
		g.Go(func() error {
			p.restore(k, earlier, maps.Collect(old.evidence.of(k)), packed)
			p.evict(earlier)
			return nil
		})
	})
	until := time.Now().Add(recheckTime)
	for k, h := range old.evidence.under(p.name) {
		if seen[k.InRepository()] {
			continue
		}
		g.Go(func() error {
			if p.replaces == nil && h.evidence != nil && time.Now().After(until) {
				fault := trust.NewFault(v1alpha1.ReasonNotLoaded,
					"TrustRoot %q was changed, and what it holds of the repository is still being verified anew",
					p.name)
				p.add(p.pending, k, rechecked{from: h, to: p.unverified(k, h, earlier, fault)})
				return nil
			}
			p.add(p.results, k, rechecked{from: h, to: p.recheck(k, earlier, h)})
			return nil
		})
	}
	_ = g.Wait() // faults are in the results
	maps.Copy(p.results, p.pending)
	return err
}

// recheckBase verifies the base that is held, and makes the root verify with it. In a rebase it is
// verified already. It drops the base where the root has none.
func (p *publication) recheckBase(base trust.Key, old *Snapshot) {
	h := old.evidence.get(base)
	_, based := p.root.based()
	switch {
	case h == nil:
	case !based:
		p.results[base] = rechecked{from: h}
	case p.replaces != nil:
		p.results[base] = rechecked{from: h, to: h}
	default:
		p.results[base] = rechecked{from: h, to: p.recheck(base, old.roots[p.name], h)}
		p.root = p.root.on(p.results[base].to, p.clock())
	}
}

// restore verifies a repository from its record, and the evidence that is held of it, if any.
func (p *publication) restore(repository trust.Key, earlier *Root, from map[trust.Key]*cached, packed []byte) {
	next := map[trust.Key]*cached{}
	for k, h := range from {
		if one := p.recheck(k, earlier, h); one != nil {
			next[k] = one
		}
	}
	taken, fault := p.store.unpack(repository, p.root, next, packed)
	if fault != nil {
		p.fail(repository, fault)
	}
	for k, h := range from {
		if taken[k] == nil {
			p.add(p.results, k, rechecked{from: h, saved: true})
		}
	}
	for k, to := range taken {
		p.add(p.results, k, rechecked{from: from[k], to: to, saved: true})
	}
}

func (p *publication) add(in map[trust.Key]rechecked, k trust.Key, c rechecked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in[k] = c
	p.size += c.to.size()
}

// evict replaces the largest evidence from records by a fault until the results fit in MaxSize. It
// runs after each record, so that memory never exceeds the bound by more than the records that are
// being verified.
func (p *publication) evict(earlier *Root) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.store.options.MaxSize > 0 && p.size > p.store.options.MaxSize {
		var largest trust.Key
		for k, c := range p.results {
			if c.saved && c.to.size() > p.results[largest].to.size() {
				largest = k
			}
		}
		c, ok := p.results[largest]
		if !ok {
			return
		}
		fault := beyond(largest, c.to.size(), p.size-c.to.size(), p.store.options.MaxSize)
		p.size -= c.to.size()
		p.results[largest] = rechecked{from: c.from, to: p.unverified(largest, c.from, earlier, fault)}
		p.faults[largest.Subject.InRepository()] = fault
	}
}

// recheckPending verifies the pending repositories, and publishes each as soon as it is verified.
func (p *publication) recheckPending(outdated func() bool) {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for k, c := range p.pending {
		g.Go(func() error {
			if !outdated() {
				p.replace(k, c, p.store.recheck(k, p.root, c.from))
			}
			return nil
		})
	}
	_ = g.Wait()
}

// replace publishes a pending subject once it is verified, also where a fetch has failed meanwhile.
// It changes nothing where a fetch has succeeded, or another root was published.
func (p *publication) replace(k trust.Key, c rechecked, verified *cached) {
	for {
		snapshot := p.store.Load()
		now := snapshot.evidence.get(k)
		if snapshot.roots[p.name] != p.root || now == nil || now.fault == nil || now.evidence != c.from.evidence {
			return
		}
		next := &cached{
			evidence: verified.evidence, fault: verified.fault, anew: now.anew, stale: now.stale, ended: now.ended,
		}
		// it always fits: it is as large as before
		if published, _ := p.store.putEvidence(k, p.root.Verifier, now, next); published {
			return
		}
	}
}

// unverified returns the state of a subject that could not be verified under the new root: the
// fault, with the evidence that was held. h may be nil.
func (p *publication) unverified(k trust.Key, h *cached, earlier *Root, fault *trust.Fault) *cached {
	if h == nil {
		return &cached{fault: fault}
	}
	next := &cached{
		evidence: h.evidence, anew: p.anew(h, earlier), fault: fault, stale: p.stale(k, h, earlier), ended: h.ended,
	}
	next.used.Store(h.used.Load())
	return next
}

// anew reports whether the versions seen are forgotten with the new root.
func (p *publication) anew(h *cached, earlier *Root) bool {
	return h.anew || earlier != nil && earlier.Epoch != p.root.Epoch
}

// stale reports whether newer evidence could not be fetched. Nothing recorded that under an earlier
// root without a grace: then it holds until the fetch that follows at once.
func (p *publication) stale(k trust.Key, h *cached, earlier *Root) bool {
	if p.root.ExpiredGrace <= 0 || h.ended {
		return false
	}
	return h.stale || earlier == nil || earlier.ExpiredGrace <= 0 ||
		p.store.Load().down[server{p.name, p.root.Verifier.Host(k.Subject)}]
}

// recheck verifies a subject's evidence under the new root. It returns nil where there is none.
func (p *publication) recheck(k trust.Key, earlier *Root, h *cached) *cached {
	if h.evidence == nil { // a fault of the earlier root says nothing of this one
		return nil
	}
	next := p.store.recheck(k, p.root, h)
	next.anew = p.anew(h, earlier)
	next.stale, next.ended = p.stale(k, h, earlier), h.ended
	next.used.Store(h.used.Load())
	return next
}

func (p *publication) fail(k trust.Key, fault *trust.Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[k.Subject.InRepository()] = fault
}

// recheckRepository verifies a repository once more after its evidence has changed. The evidence
// from its record, if it had one, is among the results.
func (p *publication) recheckRepository(repository trust.Key, earlier *Root, from map[trust.Key]*cached) {
	taken := map[trust.Subject]trust.Evidence{}
	for k, c := range p.results {
		if k.InRepository() != repository {
			continue
		}
		if c.saved && c.to != nil && c.to.evidence != nil {
			taken[k.Subject] = c.to.evidence
		}
		delete(p.results, k)
		delete(p.pending, k)
	}
	if _, based := p.root.based(); repository.Subject == trust.BaseSubject && (p.replaces != nil || !based) {
		for k, h := range from {
			p.results[k] = rechecked{from: h}
			if based {
				p.results[k] = rechecked{from: h, to: h} // another rebase follows
			}
		}
		return
	}
	var packed []byte
	if keeper, ok := p.root.Verifier.(trust.Keeper); ok && len(taken) > 0 {
		packed, _ = keeper.Pack(taken) // what cannot be packed did not come from a record
	}
	if packed != nil {
		p.restore(repository, earlier, from, packed)
		return
	}
	for k, h := range from {
		p.results[k] = rechecked{from: h, to: p.recheck(k, earlier, h)}
	}
}

// publish publishes the root with the verified evidence, and returns the subjects that have any. It
// reports false, and publishes nothing, where the root is not in use that it must replace. Where
// evidence has changed since it was verified, it verifies that again first, without the
// store's lock; in the last of recheckAttempts with the lock, so that fetches that never cease
// cannot postpone an edit that revokes a key.
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
				p.recheckChanged(old, changed)
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
		p.recheckChanged(from, changed)
	}
}

// recheckChanged verifies repositories once more.
func (p *publication) recheckChanged(from *Snapshot, changed map[trust.Key]bool) {
	for repository := range changed {
		p.recheckRepository(repository, from.roots[p.name], maps.Collect(from.evidence.of(repository)))
	}
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
				next.set(k, &cached{evidence: h.evidence, fault: h.fault, anew: true})
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
