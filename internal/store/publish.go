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

// PutRoot publishes a trust root under its name. Evidence that an earlier root of the name obtained
// is verified again by the new one; what fails is a fault from then on.
func (s *Store) PutRoot(name string, r Root) {
	nothing := func(func(trust.Subject, []byte)) error { return nil }
	_, _ = s.PutRootWith(name, r, nothing, func() bool { return false }) // there is no error but that of saved
}

// atOnce is how long the publication of an edited trust root waits for repositories to be verified
// anew. Those that are left cannot be checked until they are, so that a revoked key is out of every
// decision soon, however many repositories hang on it.
const recheckTime = 500 * time.Millisecond

// savedAtOnce is how many repositories are verified at the same time at most, of those that were
// written down.
const savedConcurrency = 4

// Saved has take called with what was written down of each repository, one after the other. take
// keeps what it is given, and may wait until there is room for more.
type Saved func(take func(repository trust.Subject, packed []byte)) error

// PutRootWith is PutRoot with what was written down: it is taken in before the root can be used, so
// that nothing older is ever accepted under it. The result is what could not be taken in, by
// repository. Once outdated says that another root is to take the place of this one, what is left
// to be verified anew is left to that. The error is that of saved; nothing is published then.
func (s *Store) PutRootWith(name string, r Root, saved Saved, outdated func() bool) (map[trust.Subject]*trust.Fault,
	error) {
	p := publication{store: s, name: name, root: &r, saved: saved, faults: map[trust.Subject]*trust.Fault{}}
	// The work is done before the lock is taken; what was published meanwhile is left for it, and
	// is little.
	if err := p.recheckAll(s.Load()); err != nil {
		return nil, err
	}
	var keys []trust.Key
	s.update(func(old *Snapshot) *Snapshot {
		next := *old
		next.roots = maps.Clone(old.roots)
		if next.roots == nil {
			next.roots = map[string]*Root{}
		}
		next.roots[name] = &r
		keys = p.evidence(old, &next)
		return &next
	})
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

// publication is a trust root on its way into the next snapshot.
type publication struct {
	store *Store
	name  string
	root  *Root
	saved Saved

	mu      sync.Mutex
	size    int64 // of what is carried
	results map[trust.Key]rechecked
	pending map[trust.Key]rechecked // published as what cannot be checked yet, and to be verified after that
	faults  map[trust.Subject]*trust.Fault
}

// carried is what the new root makes of what was held, and of what was written down where there is
// that; nil: of nothing.
type rechecked struct {
	from, to *cached
	saved    bool
}

// carry verifies what is known of the root's repositories, as many at once as there are processors:
// all that was written down, and of the others what can be done at once. No more of what was
// written down is in memory than is being verified. The error is that of saved.
func (p *publication) recheckAll(old *Snapshot) error {
	p.results, p.pending = map[trust.Key]rechecked{}, map[trust.Key]rechecked{}
	if p.root.Verifier == nil {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(min(runtime.GOMAXPROCS(0), savedConcurrency))
	seen, earlier := map[trust.Key]bool{}, old.roots[p.name]
	err := p.saved(func(repository trust.Subject, packed []byte) {
		k := trust.Key{Root: p.name, Subject: repository}
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
			if h.evidence != nil && time.Now().After(until) {
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
	_ = g.Wait() // faults are in the evidence
	maps.Copy(p.results, p.pending)
	return err
}

// restore carries a repository of which something was written down, and perhaps something is held.
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

// shed lets go of the largest of what was written down until what is carried fits: not even for a
// moment is more of it held.
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

// finish verifies what was late, and publishes each repository as it is done.
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

// replace publishes what was late in the place of what could not be checked, also where a fetch has
// failed meanwhile. Where one has succeeded, or under another root, it changes nothing.
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
		if published, _ := p.store.putEvidence(k, p.root.Verifier, now, next); published { // it is as large as before
			return
		}
	}
}

// unverified is what is held, which may be nothing, of what could not be verified under the new
// root.
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

// anew reports whether the versions seen start anew with the new root.
func (p *publication) anew(h *cached, earlier *Root) bool {
	return h.anew || earlier != nil && earlier.Epoch != p.root.Epoch
}

// stale reports whether newer evidence could not be had. Under a root without a grace nobody has
// noted that: it holds until the fetch that follows at once.
func (p *publication) stale(k trust.Key, h *cached, earlier *Root) bool {
	if p.root.ExpiredGrace <= 0 || h.ended {
		return false
	}
	return h.stale || earlier == nil || earlier.ExpiredGrace <= 0 ||
		p.store.Load().down[server{p.name, p.root.Verifier.Host(k.Subject)}]
}

// one returns what the new root holds of a subject, by what was held; nil: nothing.
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

// again carries a repository once more, of which other evidence is held than before. What was
// written down of it is in what was carried.
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
	var packed []byte
	if keeper, ok := p.root.Verifier.(trust.Keeper); ok && len(taken) > 0 {
		packed, _ = keeper.Pack(taken) // what cannot be packed was not taken in
	}
	if packed != nil {
		p.restore(repository, earlier, from, packed)
		return
	}
	for k, h := range from {
		p.results[k] = rechecked{from: h, to: p.recheck(k, earlier, h)}
	}
}

// evidence puts what the new root holds into the next snapshot, and returns which subjects those
// are; the store's lock is held. Where not all fits, the small ones come first.
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
	changed := map[trust.Key]bool{}
	for k, h := range old.evidence.under(p.name) {
		if c, ok := p.results[k]; !ok || c.from != h {
			changed[k.InRepository()] = true
		}
	}
	for repository := range changed {
		p.recheckRepository(repository, old.roots[p.name], maps.Collect(old.evidence.of(repository)))
	}
	keys := slices.SortedFunc(maps.Keys(p.results), func(a, b trust.Key) int {
		return cmp.Or(cmp.Compare(p.results[a].to.size(), p.results[b].to.size()), a.Compare(b))
	})
	var held []trust.Key
	for _, k := range keys {
		c := p.results[k]
		to, fault := p.store.fitting(k, next.size, old.evidence.get(k), c.to)
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

func (s *Store) recheck(k trust.Key, r *Root, h *cached) *cached {
	began := time.Now()
	evidence, err := r.Verifier.Recheck(k.Subject, h.evidence)
	next := &cached{evidence: evidence}
	if err != nil {
		next = &cached{evidence: h.evidence, fault: trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)}
	}
	s.observe(k.Root, r.Format, StageRecheck, began, next, next.fault)
	return next
}

// unpack returns what is held of a repository once what was written down is taken in: what was held
// before where that adds nothing or is of no use.
func (s *Store) unpack(repository trust.Key, r *Root, before map[trust.Key]*cached,
	packed []byte) (after map[trust.Key]*cached, fault *trust.Fault) {
	began := time.Now()
	after = maps.Clone(before)
	defer func() {
		if cause := recover(); cause != nil {
			after, fault = before, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
				"%s: reading what was written down broke off: %v", repository.Subject, cause)
		}
		s.observe(repository.Root, r.Format, StageRestore, began, firstOf(after), fault)
	}()
	keeper, ok := r.Verifier.(trust.Keeper)
	if !ok {
		return after, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"%s: something was written down, and this format keeps nothing", repository.Subject)
	}
	seen := map[trust.Subject]trust.Evidence{}
	for k, h := range before {
		if evidence := h.seen(); evidence != nil {
			seen[k.Subject] = evidence
		}
	}
	found, err := keeper.Unpack(repository.Subject, packed, seen)
	if err != nil {
		fault = trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	}
	for about, evidence := range found {
		k := trust.Key{Root: repository.Root, Subject: about}
		h := before[k]
		if evidence == nil || k.InRepository() != repository || fault == nil && h != nil && h.fault == nil && !h.anew &&
			h.evidence == evidence {
			continue
		}
		next := &cached{evidence: evidence, fault: fault, stale: r.ExpiredGrace > 0}
		next.used.Store(h != nil && h.used.Load())
		after[k] = next
	}
	return after, fault
}

// firstOf returns any of what is held; nil: nothing is.
func firstOf(all map[trust.Key]*cached) *cached {
	for _, h := range all {
		return h
	}
	return nil
}
