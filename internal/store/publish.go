package store

import (
	"maps"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// PutRoot publishes a trust root under its name. Evidence that an earlier root of the name obtained is verified again
// by the new one; what fails is a fault from then on.
func (s *Store) PutRoot(name string, r Root) {
	s.PutRootWith(name, r, nil, func() bool { return false })
}

// atOnce is how long the publication of an edited trust root waits for repositories to be verified anew. Those that are left cannot be
// checked until they are, so that a revoked key is out of every decision soon, however many repositories hang on it.
const atOnce = 500 * time.Millisecond

// PutRootWith is PutRoot with what was written down, by repository: it is taken in before the root can be used, so that nothing
// older is ever accepted under it. The result is what could not be taken in, by repository. Once outdated says that another root is to take
// the place of this one, what is left to be verified anew is left to that.
func (s *Store) PutRootWith(name string, r Root, saved map[string][]byte, outdated func() bool) map[string]*trust.Fault {
	p := publication{store: s, name: name, root: &r, saved: saved, faults: map[string]*trust.Fault{}}
	// The work is done before the lock is taken; what was published meanwhile is left for it, and is little.
	p.carry(s.Load())
	var keys []Key
	s.update(func(old *Snapshot) *Snapshot {
		next := *old
		next.roots = maps.Clone(old.roots)
		if next.roots == nil {
			next.roots = map[string]*Root{}
		}
		next.roots[name] = &r
		next.evidence, keys = p.evidence(old)
		return &next
	})
	for _, k := range keys {
		s.moved(k)
	}
	p.finish(outdated)
	return p.faults
}

func (s *Store) moved(k Key) {
	if s.Moved != nil {
		s.Moved(k)
	}
}

// publication is a trust root on its way into the next snapshot.
type publication struct {
	store *Store
	name  string
	root  *Root
	saved map[string][]byte

	mu      sync.Mutex
	carried map[Key]carried
	late    map[Key]carried // published as what cannot be checked yet, and to be verified after that
	faults  map[string]*trust.Fault
}

// carried is what the new root makes of what was held; nil: of nothing.
type carried struct{ from, to *held }

// carry verifies what is known of the root's repositories, as many at once as there are processors: all that was written down, and of
// the others what can be done at once.
func (p *publication) carry(old *Snapshot) {
	p.carried, p.late = map[Key]carried{}, map[Key]carried{}
	if p.root.Root == nil {
		return
	}
	todo := map[Key]*held{}
	for k, h := range old.evidence {
		if k.Root == p.name {
			todo[k] = h
		}
	}
	for repository := range p.saved {
		k := Key{Root: p.name, Repository: repository}
		todo[k] = old.evidence[k]
	}
	until := time.Now().Add(atOnce)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for k, h := range todo {
		g.Go(func() error {
			if p.saved[k.Repository] == nil && h.evidence != nil && time.Now().After(until) {
				p.keep(p.late, k, carried{h, p.unverified(h, old.roots[p.name])})
				return nil
			}
			p.keep(p.carried, k, carried{h, p.one(k, old.roots[p.name], h)})
			return nil
		})
	}
	_ = g.Wait() // faults are in the evidence
	maps.Copy(p.carried, p.late)
}

func (p *publication) keep(in map[Key]carried, k Key, c carried) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in[k] = c
}

// finish verifies what was late, and publishes each repository as it is done.
func (p *publication) finish(outdated func() bool) {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for k, c := range p.late {
		g.Go(func() error {
			if !outdated() {
				p.replace(k, c, p.store.recheck(k, p.root, c.from))
			}
			return nil
		})
	}
	_ = g.Wait()
}

// replace publishes what was late in the place of what could not be checked, also where a fetch has failed meanwhile. Where one has
// succeeded, or under another root, it changes nothing.
func (p *publication) replace(k Key, c carried, verified *held) {
	for {
		snapshot := p.store.Load()
		now := snapshot.evidence[k]
		if snapshot.roots[p.name] != p.root || now == nil || now.fault == nil || now.evidence != c.from.evidence {
			return
		}
		next := &held{evidence: verified.evidence, fault: verified.fault, anew: now.anew, stale: now.stale, ended: now.ended}
		if p.store.putEvidence(k, p.root.Root, now, next) {
			return
		}
	}
}

// unverified is what is held until it has been verified under the new root.
func (p *publication) unverified(h *held, earlier *Root) *held {
	fault := trust.NewFault(v1alpha1.ReasonNotLoaded, "TrustRoot %q was changed, and what it holds of the repository is still being verified anew", p.name)
	next := &held{evidence: h.evidence, anew: p.anew(h, earlier), fault: fault, stale: p.stale(h, earlier), ended: h.ended}
	next.used.Store(h.used.Load())
	return next
}

// anew reports whether the versions seen start anew with the new root.
func (p *publication) anew(h *held, earlier *Root) bool {
	return h.anew || earlier != nil && earlier.Epoch != p.root.Epoch
}

// stale reports whether newer evidence could not be had. Under a root without a grace nobody has noted that: it holds until the
// fetch that follows at once.
func (p *publication) stale(h *held, earlier *Root) bool {
	if p.root.ExpiredGrace <= 0 || h.ended {
		return false
	}
	return h.stale || earlier == nil || earlier.ExpiredGrace <= 0 || p.store.Load().down[p.name]
}

// one returns what the new root holds of a repository; nil: nothing.
func (p *publication) one(k Key, earlier *Root, h *held) *held {
	var next *held
	if h != nil && h.evidence != nil { // a fault of the earlier root says nothing of this one
		next = p.store.recheck(k, p.root, h)
		next.anew = p.anew(h, earlier)
		next.stale, next.ended = p.stale(h, earlier), h.ended
		next.used.Store(h.used.Load())
	}
	packed := p.saved[k.Repository]
	if packed == nil {
		return next
	}
	taken, fault := p.store.unpack(k, p.root, next, packed)
	if fault != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.faults[k.Repository] = fault
	}
	return taken
}

// evidence returns that of the next snapshot, and which repositories of the root are in it; the store's lock is held.
func (p *publication) evidence(old *Snapshot) (map[Key]*held, []Key) {
	next := maps.Clone(old.evidence)
	if next == nil {
		next = map[Key]*held{}
	}
	if p.root.Root == nil {
		for k, h := range old.evidence {
			if earlier := old.roots[p.name]; k.Root == p.name && earlier != nil && earlier.Epoch != p.root.Epoch {
				next[k] = &held{evidence: h.evidence, fault: h.fault, anew: true}
			}
		}
		return next, nil
	}
	for k, h := range old.evidence {
		if c, ok := p.carried[k]; k.Root == p.name && (!ok || c.from != h) {
			p.carried[k] = carried{h, p.one(k, old.roots[p.name], h)}
			delete(p.late, k)
		}
	}
	var keys []Key
	for k, c := range p.carried {
		if c.to == nil {
			delete(next, k)
			continue
		}
		next[k] = c.to
		keys = append(keys, k)
	}
	return next, keys
}

func (s *Store) recheck(k Key, r *Root, h *held) *held {
	began := time.Now()
	evidence, err := r.Root.Recheck(k.Repository, h.evidence)
	next := &held{evidence: evidence}
	if err != nil {
		next = &held{evidence: h.evidence, fault: trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)}
	}
	s.observe(k.Root, r.Format, StageRecheck, began, next, next.fault)
	return next
}

// unpack returns what is held once what was written down is taken in: h itself where that adds nothing or is of no use.
func (s *Store) unpack(k Key, r *Root, h *held, packed []byte) (next *held, fault *trust.Fault) {
	began := time.Now()
	next = h
	defer func() {
		if cause := recover(); cause != nil {
			next, fault = h, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: reading what was written down broke off: %v", k.Repository, cause)
		}
		s.observe(k.Root, r.Format, StageRestore, began, next, fault)
	}()
	evidence, err := r.Root.Unpack(k.Repository, packed, h.seen())
	if err != nil {
		fault = trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	}
	switch {
	case evidence == nil, fault == nil && h != nil && h.fault == nil && !h.anew && h.evidence == evidence:
		return h, fault
	case h != nil && h.used.Load():
		next = &held{evidence: evidence, fault: fault, stale: r.ExpiredGrace > 0}
		next.used.Store(true)
		return next, fault
	}
	return &held{evidence: evidence, fault: fault, stale: r.ExpiredGrace > 0}, fault
}
