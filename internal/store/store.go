// Package store holds what admission decides from: the compiled policies, the trust roots and the
// verified evidence, as one immutable snapshot behind an atomic pointer. Controllers publish the
// next snapshot, the webhook loads the current one once a request; they meet nowhere else.
//
// The package fetches nothing under a lock, and verifies nothing under one unless evidence keeps
// changing while an edited trust root is to be published (recheckAttempts). Writers make the next
// snapshot from the current one, one writer at a time, and readers never wait. The Tracker fetches
// evidence, once for all concurrent requests, and keeps it up to date. The package never decides
// anything, and never drops evidence because a server cannot be reached.
package store

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Options are the settings of a store. The zero value denies uncovered images and short names.
type Options struct {
	// Uncovered is what happens to an image that no policy covers.
	Uncovered policy.Uncovered
	// ShortNames is how references without a registry host are read.
	ShortNames policy.ShortNames
	// MaxSize bounds the memory that evidence takes up, in bytes. Evidence that does not fit is a
	// fault of its repository alone; the evidence held before stays. 0: no bound.
	MaxSize int64
	// Observer, where set, receives every verification.
	Observer Observer
	// Changed, where set, is called after each new snapshot, without a lock held. It must not
	// block. It is not called where a registry gave the same answer about a tag again.
	Changed func()
	// Moved, where set, is called for each subject whose evidence, or whose root, has changed,
	// without a lock held. It must not block. It is not called where a registry gave the same
	// answer about a tag again: the hourly check of a record writes down its time.
	Moved func(trust.Key)
}

// Store publishes snapshots. Make it with New; it is safe for concurrent use.
type Store struct {
	options Options
	current atomic.Pointer[Snapshot]
	writing sync.Mutex // held by whoever computes the next snapshot; readers never wait
	// rebaseTime is the constant of that name, which tests make shorter.
	rebaseTime time.Duration
}

// New returns a store with no policies and no trust roots.
func New(o Options) *Store {
	s := &Store{options: o, rebaseTime: rebaseTime}
	s.current.Store(&Snapshot{Policies: policy.NewSet(o.Uncovered, nil).ReadShortNames(o.ShortNames)})
	return s
}

// Load returns the current snapshot.
func (s *Store) Load() *Snapshot { return s.current.Load() }

// update publishes the snapshot that next makes from the current one. Where next returns nil, the
// current one stays.
func (s *Store) update(next func(*Snapshot) *Snapshot) {
	if s.publish(next) {
		s.notifyChanged()
	}
}

func (s *Store) notifyChanged() {
	if s.options.Changed != nil {
		s.options.Changed()
	}
}

func (s *Store) publish(next func(*Snapshot) *Snapshot) bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	n := next(s.current.Load())
	if n != nil {
		s.current.Store(n)
	}
	return n != nil
}

// PutPolicy adds a policy, or replaces the one of its name. version tells one publication from
// another, so that a controller need not publish what is in force already.
func (s *Store) PutPolicy(p *policy.Policy, version string) {
	s.update(func(old *Snapshot) *Snapshot {
		policies := maps.Clone(old.policies)
		if policies == nil {
			policies = map[string]versioned{}
		}
		policies[p.Name()] = versioned{p, version}
		return old.withPolicies(policies)
	})
}

// DropPolicy removes a policy.
func (s *Store) DropPolicy(name string) {
	s.update(func(old *Snapshot) *Snapshot {
		if _, ok := old.policies[name]; !ok {
			return nil
		}
		policies := maps.Clone(old.policies)
		delete(policies, name)
		return old.withPolicies(policies)
	})
}

// DropRoot removes a trust root and everything that was verified under it.
func (s *Store) DropRoot(name string) {
	s.update(func(old *Snapshot) *Snapshot {
		if _, ok := old.roots[name]; !ok {
			return nil
		}
		next := *old
		next.roots = maps.Clone(old.roots)
		delete(next.roots, name)
		next.evidence = old.evidence.clone()
		for k := range old.evidence.under(name) {
			next.set(k, nil)
		}
		next.withoutDown(name)
		return &next
	})
}

// putEvidence publishes h, which root made from the state from. It changes nothing, and returns
// false, where another root or state was published meanwhile. Where h does not fit in MaxSize it
// returns a fault, and the earlier evidence stays.
func (s *Store) putEvidence(k trust.Key, root trust.Root, from, h *cached) (published bool, fault *trust.Fault) {
	changed := false
	next := func(old *Snapshot) *Snapshot {
		r := old.roots[k.Root]
		if published = r != nil && r.Verifier == root && old.evidence.get(k) == from; !published {
			return nil
		}
		if h, fault = s.fitting(k, old, from, h); from == h {
			return nil
		}
		changed = !h.sameAnswer(from)
		if from != nil && from.used.Load() {
			h.used.Store(true)
		}
		return old.with(k, h)
	}
	if s.publish(next); changed {
		s.notifyChanged()
		s.moved(k)
	}
	return published, fault
}

// unsignedPart is the part of MaxSize that evidence without signatures may take up, as a divisor.
// Anybody may push signatures that do not count, and name their images in Pods. Signed evidence has
// the rest.
const unsignedPart = 4

// fitting returns h where it fits in place of from, beside the evidence of a snapshot. Otherwise it
// returns from with a fault. It never keeps evidence with a signature in place of evidence without
// one for lack of space for the latter.
func (s *Store) fitting(k trust.Key, beside *Snapshot, from, h *cached) (*cached, *trust.Fault) {
	most := s.options.MaxSize
	more, unsigned := h.size()-from.size(), h.unsignedSize()-from.unsignedSize()
	var fault *trust.Fault
	switch {
	case most == 0:
	case more > 0 && beside.size+more > most:
		fault = beyond(k, h.size(), beside.size, most)
	case unsigned > 0 && !signed(from) && beside.unsigned+unsigned > most/unsignedPart:
		fault = trust.NewFault(v1alpha1.ReasonTooLarge,
			"%s: its signatures, none of which counts, take up to %d bytes of memory, and %d of the %d for such images "+
				"are taken; remove the signatures that are not needed, or try again in %s", k.Subject, h.size(),
			beside.unsigned, most/unsignedPart, forgetAfter)
	}
	if fault != nil {
		return from.failed(fault), fault
	}
	return h, nil
}

// beyond returns the fault of evidence that does not fit in MaxSize.
func beyond(k trust.Key, size, held, most int64) *trust.Fault {
	return trust.NewFault(v1alpha1.ReasonTooLarge,
		"%s: what was verified takes up to %d bytes of memory, and %d of the %d for all repositories are taken; "+
			"raise the memory limit of the operator", k.Subject, size, held, most)
}

// with returns a snapshot in which a subject has the state h, or none where h is nil.
func (s *Snapshot) with(k trust.Key, h *cached) *Snapshot {
	next := *s
	next.evidence = s.evidence.clone()
	next.set(k, h)
	return &next
}

// set is with in place, for a snapshot that is not published yet.
func (s *Snapshot) set(k trust.Key, h *cached) {
	from := s.evidence.get(k)
	s.size += h.size() - from.size()
	s.unsigned += h.unsignedSize() - from.unsignedSize()
	s.evidence.set(k, h)
}

// release drops a repository.
func (s *Store) release(repository trust.Key) {
	s.update(func(old *Snapshot) *Snapshot {
		next := *old
		next.evidence = old.evidence.clone()
		for k := range old.evidence.of(repository) {
			next.set(k, nil)
		}
		return &next
	})
}

// dropEvidence drops those of the subjects that have no signatures: a fetch may have ended since
// they were chosen. Tags it drops in any case.
func (s *Store) dropEvidence(keys []trust.Key) {
	s.update(func(old *Snapshot) *Snapshot {
		next := *old
		next.evidence = old.evidence.clone()
		for _, k := range keys {
			if k.Tag != "" || !signed(next.evidence.get(k)) {
				next.set(k, nil)
			}
		}
		return &next
	})
}

// Root is one TrustRoot in a snapshot: usable, or with a fault that says why not.
type Root struct {
	// Verifier verifies images; nil where Fault is set.
	Verifier trust.Root
	// Fault says why the trust root cannot be used.
	Fault *trust.Fault
	// Version tells one publication from another, so that a controller need not publish what is in
	// force already.
	Version string
	// UID is the UID of the TrustRoot.
	UID types.UID
	// Epoch is the epoch of the versions seen. A new epoch forgets them, as at first sight.
	Epoch string
	// Format is what the trust root verifies, as its status names it: "Notary".
	Format string
	// Fingerprints are what the root of trust is pinned to, for the status.
	Fingerprints []string
	// Notes say which of its material does not count, for the status.
	Notes []string
	// ExpiredGrace is how long past its expiry evidence is used that no fetch could refresh. 0: not
	// at all.
	ExpiredGrace time.Duration
}

// Snapshot is everything an admission decision needs. It is immutable and implements policy.Roots.
type Snapshot struct {
	// Policies are the policies in force.
	Policies *policy.Set
	// Primed says that the snapshot has all policies and trust roots that existed at the start. No
	// image may be admitted from a snapshot that is not primed: a policy that denies it may be
	// missing.
	Primed bool

	policies map[string]versioned
	roots    map[string]*Root
	evidence evidence
	size     int64           // of evidence, in bytes
	unsigned int64           // of that, of evidence without signatures
	down     map[server]bool // the down servers under roots with a grace
}

type versioned struct {
	policy  *policy.Policy
	version string
}

func (s *Snapshot) withPolicies(policies map[string]versioned) *Snapshot {
	all := make([]*policy.Policy, 0, len(policies))
	for _, v := range policies {
		all = append(all, v.policy)
	}
	next := *s
	next.policies, next.Policies = policies, s.Policies.With(all)
	return &next
}

// MarkPrimed records that every policy and trust root that existed at the start was published.
func (s *Store) MarkPrimed() {
	s.update(func(old *Snapshot) *Snapshot {
		next := *old
		next.Primed = true
		return &next
	})
}

// Root returns a published trust root, nil if there is none. It must not be changed.
func (s *Snapshot) Root(name string) *Root { return s.roots[name] }

// PolicyVersion returns the version of a published policy, empty if there is none.
func (s *Snapshot) PolicyVersion(name string) string { return s.policies[name].version }

// RootNames returns the names of the published trust roots, sorted.
func (s *Snapshot) RootNames() []string { return slices.Sorted(maps.Keys(s.roots)) }

// Policy returns a published policy, nil if there is none.
func (s *Snapshot) Policy(name string) *policy.Policy { return s.policies[name].policy }

// PolicyNames returns the names of the published policies, sorted.
func (s *Snapshot) PolicyNames() []string { return slices.Sorted(maps.Keys(s.policies)) }

// Usable implements policy.Roots.
func (s *Snapshot) Usable(root string) error {
	r := s.roots[root]
	if r == nil {
		return trust.NewFault(v1alpha1.ReasonTrustRootNotFound, "TrustRoot %q does not exist", root)
	}
	if r.Verifier == nil {
		return trust.NewFault(v1alpha1.ReasonTrustRootNotReady, "TrustRoot %q is not ready: %w", root, r.Fault)
	}
	return nil
}

// Subject implements policy.Roots.
func (s *Snapshot) Subject(root string, image imageref.Ref) trust.Subject {
	return s.roots[root].Verifier.Subject(image)
}

// Tenant implements policy.Roots.
func (s *Snapshot) Tenant(about trust.Key, namespace string) (instead trust.Key, ok bool) {
	r := s.roots[about.Root]
	if r == nil {
		return trust.Key{}, false
	}
	tenanted, ok := r.Verifier.(trust.Tenanted)
	if !ok {
		return trust.Key{}, false
	}
	subject, ok := tenanted.Tenant(about.Subject, namespace)
	return trust.Key{Root: about.Root, Subject: subject}, ok
}

// Evidence implements policy.Roots.
func (s *Snapshot) Evidence(about trust.Key) (trust.Evidence, time.Duration, error) {
	if err := s.Usable(about.Root); err != nil {
		return nil, 0, err
	}
	h := s.evidence.get(about)
	if h == nil {
		return nil, 0, policy.ErrNotLoaded
	}
	if !h.used.Load() { // a write for each decision would contend between processors
		h.used.Store(true)
	}
	if h.fault != nil {
		return nil, 0, h.fault
	}
	return h.evidence, s.grace(about, h), nil
}
