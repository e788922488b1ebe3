package notary

import (
	"context"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxParallel bounds the requests in flight for one repository.
	maxParallel = 16
	// maxRootSteps bounds the root versions between a pinned or known root and the newest.
	maxRootSteps = 128
	maxProbeSize = 64 << 10
)

// Getter sends GET requests to the Notary server. The registry client implements it.
type Getter interface {
	// Get returns the body at a path of the server, such as /v2/<repository>/_trust/tuf/root.json,
	// with a token scoped to pull from repository. A body of more than limit bytes is a fault. The
	// error is trust.ErrNotFound if the server answers 404 with an error code of its protocol, and
	// otherwise a *trust.Fault.
	Get(ctx context.Context, repository, path string, limit int64) ([]byte, error)
}

var (
	_ trust.Root   = (*Root)(nil)
	_ trust.Keeper = (*Root)(nil)
)

// Subject implements trust.Root. It is the repository: its metadata covers all tags.
func (r *Root) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: r.remaps.Signed(image)}
}

// Host implements trust.Root. A trust root has one server, so the name is constant.
func (*Root) Host(trust.Subject) string { return "server" }

// Fetch implements trust.Root. The first fetch of a repository takes three round trips. A refresh
// takes one request if the timestamp is unchanged. If verification fails, it requests root.json; if
// that is newer, it verifies everything once more from it.
func (r *Root) Fetch(ctx context.Context, about trust.Subject, previous trust.Evidence) (trust.Evidence, error) {
	repository := about.Repository
	if err := checkRepository(repository); err != nil {
		return nil, err
	}
	base, err := r.previousEvidence(repository, previous)
	if err != nil {
		return nil, err
	}
	s := &session{
		rootVerifier: rootVerifier{Root: r, repository: repository, at: r.now()}, previous: base,
		fetched: map[string][]byte{},
	}
	var ev *evidence
	if base.raw == nil {
		ev, err = s.fetchNew(ctx)
	} else {
		ev, err = s.refresh(ctx)
	}
	switch {
	case err != nil:
		return nil, base.withRevocation(trust.AsFault(err, v1alpha1.ReasonUnreachable))
	case ev == nil:
		return trust.Unsigned{}, nil
	default:
		r.identity.verified.Store(true)
		return ev, nil
	}
}

// Recheck implements trust.Root.
func (r *Root) Recheck(about trust.Subject, previous trust.Evidence) (trust.Evidence, error) {
	if _, ok := previous.(trust.Unsigned); ok {
		return previous, nil // the absence of signatures depends on no pin
	}
	ev, err := asEvidence(about.Repository, previous)
	if err != nil {
		return nil, err
	}
	checked, err := r.recheck(ev)
	if err != nil {
		return nil, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	}
	return checked, nil
}

// recheck verifies evidence again, without a network. It waits for the memory budget without a
// context: holders of the budget wait for the processor only.
func (r *Root) recheck(ev *evidence) (checked *evidence, err error) {
	if same := r.adopt(ev, r.now()); same != nil {
		return same, nil
	}
	err = r.withinBudget(context.Background(), ev.repository, ev.raw.size(), func() error {
		checked, err = r.verified(ev)
		return err
	})
	return checked, err
}

// verified verifies the raw files of evidence from the root down.
func (r *Root) verified(ev *evidence) (*evidence, error) {
	f, err := ev.raw.unpack(isAny)
	if err != nil {
		return nil, err
	}
	m := newMetadata(rootVerifier{Root: r, repository: ev.repository, at: r.now(), grace: r.grace}, ev.seen)
	m.seenExpired = slices.Clone(ev.seenExpired)
	if err := m.loadRoots(f.roots, len(f.roots)); err != nil {
		return nil, err
	}
	snapshot, err := m.loadTimestamp(f.others[timestampRole])
	if err != nil {
		return nil, err
	}
	if _, err := m.loadSnapshot(f.others[snapshotRole], snapshot); err != nil {
		return nil, err
	}
	if err := m.loadTargets(f.others); err != nil {
		return nil, err
	}
	same := ev.raw
	if len(m.raw.roots) != len(f.roots) || len(m.raw.others) != len(f.others) {
		same = nil // some files are no longer needed
	}
	return m.finish(same), nil
}

// asEvidence returns evidence of this package about the repository. Other evidence is a fault.
func asEvidence(repository string, previous trust.Evidence) (*evidence, error) {
	ev, ok := previous.(*evidence)
	if !ok || ev == nil || ev.repository != repository {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"%s: the earlier evidence is not of this repository and format", repository)
	}
	return ev, nil
}

// previousEvidence returns the evidence to refresh, verified by this Root. It is empty where there
// is none. Evidence of another Root is verified again under the pins of this one. If that fails,
// only the seen versions are kept. If its root is no longer pinned, not even those are kept: the
// administrator has replaced the root of trust, so versions start again.
func (r *Root) previousEvidence(repository string, previous trust.Evidence) (*evidence, error) {
	if _, unsigned := previous.(trust.Unsigned); unsigned || previous == nil {
		return &evidence{root: r, repository: repository}, nil
	}
	ev, err := asEvidence(repository, previous)
	if err != nil || ev.root == r {
		return ev, err
	}
	checked, err := r.recheck(ev)
	if err == nil {
		return checked, nil
	}
	left := &evidence{
		root: r, repository: repository, known: true, unusable: trust.AsFault(err, v1alpha1.ReasonMetadataInvalid),
	}
	if left.unusable.Reason != v1alpha1.ReasonRootNotPinned {
		left.seen = ev.seen
	}
	return left, nil
}

// withRevocation adds to the fault of a fetch that a revoked key invalidated the previous evidence.
// Without it, a server that is down would hide the revocation.
func (e *evidence) withRevocation(f *trust.Fault) *trust.Fault {
	if e.unusable == nil || e.unusable.Reason != v1alpha1.ReasonKeyRevoked || f.Reason == v1alpha1.ReasonKeyRevoked {
		return f
	}
	return trust.NewFault(f.Reason, "%w; and the earlier evidence does not count: %w", f, e.unusable)
}
