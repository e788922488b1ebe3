package store

import (
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// recheckAll verifies the root's repositories, as many at once as there are processors: all that
// have a record, and of the others those that it can within recheckTime. It holds in memory only
// the records that it is verifying. The error is that of saved.
func (p *publication) recheckAll(old *Snapshot) error {
	p.results, p.pending = map[trust.Key]rechecked{}, map[trust.Key]rechecked{}
	if p.root.Verifier == nil {
		return nil
	}
	var g errgroup.Group
	g.SetLimit(min(p.parallel, savedConcurrency))
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
	until := time.Now().Add(p.within)
	for k, h := range old.evidence.under(p.name) {
		if seen[k.InRepository()] {
			continue
		}
		g.Go(func() error {
			switch {
			case p.overtaken():
			case h.evidence != nil && !time.Now().Before(until):
				p.add(p.pending, k, p.postponed(k, h, earlier))
			default:
				p.add(p.results, k, rechecked{from: h, to: p.recheck(k, earlier, h)})
			}
			return nil
		})
	}
	_ = g.Wait() // faults are in the results
	maps.Copy(p.results, p.pending)
	return err
}

// overtaken reports whether another root is in use than the one that must be replaced, so that
// nothing of this publication will be published.
func (p *publication) overtaken() bool {
	return p.replaces != nil && p.store.Load().roots[p.name] != p.replaces
}

// postponed returns the state of a subject that is verified only after the root has taken effect.
func (p *publication) postponed(k trust.Key, h *cached, earlier *Root) rechecked {
	fault := trust.NewFault(v1alpha1.ReasonNotLoaded,
		"TrustRoot %q was changed, and what it holds of the repository is still being verified anew", p.name)
	return rechecked{from: h, to: p.unverified(k, h, earlier, fault)}
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
	g.SetLimit(p.parallel)
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
		next.withdraw(now)
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
	next.withdraw(h)
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
		if h.withdrawn == nil {
			return nil
		}
		return &cached{fault: h.withdrawn, withdrawn: h.withdrawn} // but a record must not revive what has ended
	}
	next := p.store.recheck(k, p.root, h)
	next.anew = p.anew(h, earlier)
	next.stale, next.ended = p.stale(k, h, earlier), h.ended
	next.withdraw(h)
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
