package notary

import (
	"context"
	"slices"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxParallel bounds the requests of one repository that are under way at the same time.
	maxParallel = 16
	// maxRootSteps bounds how many root versions are walked between a pinned or held root and the
	// newest.
	maxRootSteps = 128
	maxProbeSize = 64 << 10
)

// Getter reads from the Notary server. The registry client implements it.
type Getter interface {
	// Get returns the body at a path of the server, such as /v2/<repository>/_trust/tuf/root.json,
	// with a token scoped to pull from repository. A body of more than limit bytes is a fault. The
	// error is trust.ErrNotFound where the server says, in the words of its protocol, that there is
	// no such thing, and otherwise a *trust.Fault.
	Get(ctx context.Context, repository, path string, limit int64) ([]byte, error)
}

var (
	_ trust.Root   = (*Root)(nil)
	_ trust.Keeper = (*Root)(nil)
)

// Subject implements trust.Root: the repository, whose metadata holds what was signed for all of
// its tags.
func (r *Root) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: r.remaps.Signed(image)}
}

// Host implements trust.Root: all is asked of one server, whatever its name.
func (*Root) Host(trust.Subject) string { return "server" }

// Fetch implements trust.Root. First sight of a repository takes three round trips; a refresh that
// finds the same timestamp takes one request. Where verification fails, root.json is asked for, and
// if it is a newer one everything is verified from it, once.
func (r *Root) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	repository := about.Repository
	if err := checkRepository(repository); err != nil {
		return nil, err
	}
	base, err := r.previousEvidence(repository, held)
	if err != nil {
		return nil, err
	}
	s := &session{
		rootVerifier: rootVerifier{Root: r, repository: repository, at: r.now()}, previous: base, fetched: map[string][]byte{},
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
func (r *Root) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if _, ok := held.(trust.Unsigned); ok {
		return held, nil // an absence hangs on no pin
	}
	ev, err := asEvidence(about.Repository, held)
	if err != nil {
		return nil, err
	}
	checked, err := r.recheck(ev)
	if err != nil {
		return nil, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	}
	return checked, nil
}

// recheck verifies evidence again. It waits for the budget without a context: whoever holds that
// waits for the processor alone.
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
		same = nil // some of the files are of no use any more
	}
	return m.finish(same), nil
}

func asEvidence(repository string, held trust.Evidence) (*evidence, error) {
	ev, ok := held.(*evidence)
	if !ok || ev == nil || ev.repository != repository {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"%s: the evidence held is not of this repository and format", repository)
	}
	return ev, nil
}

// own returns what is held as this Root sees it, and an empty evidence where there is none. What
// another Root verified is verified again under the pins of this one; where that fails only the
// versions seen are kept. Not even those are where its root is pinned no more: whoever edits the
// TrustRoot has replaced the root of trust, and versions start anew with it.
func (r *Root) previousEvidence(repository string, held trust.Evidence) (*evidence, error) {
	if _, unsigned := held.(trust.Unsigned); unsigned || held == nil {
		return &evidence{root: r, repository: repository}, nil
	}
	ev, err := asEvidence(repository, held)
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

// explained adds to the fault of a fetch why what was verified before is of no use: with the server
// down, that a key is revoked would go unsaid.
func (e *evidence) withRevocation(f *trust.Fault) *trust.Fault {
	if e.unusable == nil || e.unusable.Reason != v1alpha1.ReasonKeyRevoked || f.Reason == v1alpha1.ReasonKeyRevoked {
		return f
	}
	return trust.NewFault(f.Reason, "%w; and what was verified before does not count: %w", f, e.unusable)
}
