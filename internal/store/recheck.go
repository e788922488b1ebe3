package store

import (
	"maps"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// recheck verifies the evidence of one subject under a root, without a network. A panic in the
// verification of hostile metadata is a fault like any other.
func (s *Store) recheck(k trust.Key, r *Root, h *cached) (next *cached) {
	began := time.Now()
	defer func() {
		if cause := recover(); cause != nil {
			next = &cached{evidence: h.evidence, fault: trust.NewFault(v1alpha1.ReasonMetadataInvalid,
				"%s: verification broke off: %v", k.Subject, cause)}
		}
		s.observe(k.Root, r.Format, StageRecheck, began, next, next.fault)
	}()
	evidence, err := r.Verifier.Recheck(k.Subject, h.evidence)
	if err != nil {
		return &cached{evidence: h.evidence, fault: trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)}
	}
	return &cached{evidence: evidence}
}

// unpack verifies the record of a repository, and returns the state of each of its subjects
// afterwards: as before where the record adds nothing, or cannot be used.
func (s *Store) unpack(repository trust.Key, r *Root, before map[trust.Key]*cached,
	packed []byte) (after map[trust.Key]*cached, fault *trust.Fault) {
	began := time.Now()
	after = maps.Clone(before)
	defer func() {
		if cause := recover(); cause != nil {
			after, fault = before, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
				"%s: reading the record broke off: %v", repository.Subject, cause)
		}
		s.observe(repository.Root, r.Format, StageRestore, began, firstOf(after), fault)
	}()
	keeper, ok := r.Verifier.(trust.Keeper)
	if !ok {
		return after, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"%s: there is a record, and this format keeps none", repository.Subject)
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
		if evidence == nil || k.InRepository() != repository {
			continue
		}
		if fault == nil && h != nil && !h.anew && h.evidence == evidence {
			continue // a fault remains one: the record adds nothing to what must not be used
		}
		next := &cached{evidence: evidence, fault: fault, stale: r.ExpiredGrace > 0}
		next.withdraw(h)
		next.used.Store(h != nil && h.used.Load())
		after[k] = next
	}
	return after, fault
}

// firstOf returns the state of any one subject; nil: there is none.
func firstOf(all map[trust.Key]*cached) *cached {
	for _, h := range all {
		return h
	}
	return nil
}
