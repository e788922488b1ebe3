package tuf

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
	"weak"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const (
	maxProbeSize = 64 << 10
	// probeRepository is requested where each image repository has its own TUF repository. It need
	// not exist.
	probeRepository = "countersign.dev/probe"
)

// Root verifies images under one TrustRoot. It implements trust.Root. It holds the newest metadata
// of each TUF repository while evidence of it is in use.
type Root struct {
	get      tufrepo.Getter
	config   tufrepo.Config // of each TUF repository, without name and folder
	pinned   []string       // IDs of the pinned root keys
	location location
	layout   layout
	roles    roles
	remaps   trust.Remaps
	grace    time.Duration
	interval time.Duration
	epoch    string
	now      func() time.Time
	notes    []string

	mu           sync.Mutex
	repositories map[string]weak.Pointer[repository] // by folder
	swept        int                                 // how many repositories the last sweep left
	only         *repository                         // where there is one for all images
}

var (
	_ trust.Root      = (*Root)(nil)
	_ trust.Keeper    = (*Root)(nil)
	_ trust.Described = (*Root)(nil)
	_ trust.Deriver   = (*Root)(nil)
)

// Fingerprints implements trust.Described: the IDs of the keys of the pinned root.
func (r *Root) Fingerprints() []string { return r.pinned }

// Notes implements trust.Described.
func (r *Root) Notes() []string { return r.notes }

// Subject implements trust.Root: the tag of the image, or if it has none, its repository.
func (r *Root) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{
		Repository: r.remaps.Signed(image), Tag: image.Tag, Shared: !r.location.perRepository,
	}
}

// Host implements trust.Root. A trust root has one server, so the name is constant.
func (*Root) Host(trust.Subject) string { return "server" }

// Probe implements trust.Root. Where each image repository has its own TUF repository, any answer
// of the server will do: many file servers answer 403 for a file that does not exist.
func (r *Root) Probe(ctx context.Context, _ string) error {
	file := r.location.folder(probeRepository) + "/timestamp.json"
	body, err := r.get.Get(ctx, file, maxProbeSize)
	if r.location.perRepository {
		if errors.Is(err, trust.ErrNotFound) ||
			err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonUnauthorized {
			return nil
		}
		return err
	}
	switch {
	case errors.Is(err, trust.ErrNotFound):
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "the server has no timestamp.json below "+
			"spec.tuf.server, so that is not the URL of the metadata of a TUF repository")
	case err == nil && !json.Valid(body):
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"timestamp.json below spec.tuf.server is not JSON, so that is no TUF repository; check spec.tuf.server")
	}
	return err
}

// repositoryOf returns the TUF repository that has the signatures of an image repository.
func (r *Root) repositoryOf(about trust.Subject) (*repository, error) {
	folder := r.location.folder(about.Repository)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.only != nil && !r.location.perRepository {
		return r.only, nil
	}
	if p := r.repositories[folder].Value(); p != nil {
		return p, nil
	}
	cfg := r.config
	cfg.MetadataPath = folder
	cfg.Name = r.location.server + folder
	client, err := tufrepo.New(cfg, r.get)
	if err != nil {
		return nil, err
	}
	p := newRepository(client)
	if !r.location.perRepository {
		r.only = p
		return p, nil
	}
	r.sweep()
	r.repositories[folder] = weak.Make(p)
	return p, nil
}

// sweep removes the TUF repositories of which no evidence is left, once there may be many: Pods can
// name any. The lock is held.
func (r *Root) sweep() {
	if len(r.repositories) < 2*r.swept+64 {
		return
	}
	for folder, p := range r.repositories {
		if p.Value() == nil {
			delete(r.repositories, folder)
		}
	}
	r.swept = len(r.repositories)
}

// Fetch implements trust.Root. The first fetch of a subject takes three round trips, and one for
// each level of delegations. A refresh takes two requests if nothing has changed.
func (r *Root) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	p, err := r.repositoryOf(about)
	if err != nil {
		return nil, err
	}
	before, stale := r.before(p, about, held)
	w := want{family: r.layout.family(about.Repository)}
	if about.Tag != "" {
		w.path = r.layout.path(about.Repository, about.Tag)
	}
	var m *metadata
	if trust.PurposeOf(ctx).Background {
		m = p.recent()
	}
	if m == nil || m.state.Lacks(w.path, w.family) {
		m, err = p.refresh(ctx, w)
	}
	switch {
	case errors.Is(err, trust.ErrNotFound) && r.location.perRepository:
		return trust.Unsigned{}, nil
	case errors.Is(err, trust.ErrNotFound):
		return nil, trust.NewFault(v1alpha1.ReasonMetadataMissing,
			"the server has no timestamp.json below spec.tuf.server (%s): check the URL", r.location.server)
	case err != nil:
		return nil, withRevocation(trust.AsFault(err, v1alpha1.ReasonUnreachable), stale)
	}
	if before != nil && before.metadata == m && len(before.faults) == 0 && before.current(r.now()) {
		return before, nil
	}
	known := before != nil && before.known || r.location.perRepository && about.Tag == ""
	e := r.evidenceOf(p, m, about, view{at: r.now(), now: r.now(), known: known})
	switch {
	case e.same(before):
		return before, nil
	case before != nil && len(before.faults) == 0 && len(e.faults) > 0 && e.notObtained():
		return nil, e.faults[0] // what was verified completely stays until all can be loaded
	}
	return e.charged(), nil
}

// Derive implements trust.Deriver.
func (r *Root) Derive(about trust.Subject) trust.Evidence {
	p := r.repositoryInUse(about)
	if p == nil {
		return nil
	}
	m, now := p.knownWithin(2*r.interval), r.now()
	if m == nil {
		return nil
	}
	e := r.evidenceOf(p, m, about, view{at: now, now: now})
	if !e.known || len(e.faults) > 0 || !now.Before(e.notAfter) {
		return nil
	}
	return e.charged()
}

// repositoryInUse is repositoryOf for a TUF repository of which evidence is in use; nil: none is.
func (r *Root) repositoryInUse(about trust.Subject) *repository {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.location.perRepository {
		return r.only
	}
	return r.repositories[r.location.folder(about.Repository)].Value()
}

// before returns the evidence to refresh, of this Root; nil: there is none. Evidence of an earlier
// Root is verified again. If it does not verify any more, fault says why: it then counts for
// nothing, but the versions seen do, if they can be read.
func (r *Root) before(p *repository, about trust.Subject, held trust.Evidence) (before *evidence, fault *trust.Fault) {
	e, ok := held.(*evidence)
	if !ok || e == nil {
		return nil, nil
	}
	if e.root != r || e.repository != p {
		checked, err := r.Recheck(about, e)
		if err != nil {
			return nil, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
		}
		e, _ = checked.(*evidence)
	}
	p.know(e.metadata)
	return e, nil
}

// withRevocation adds to the fault of a fetch that a revoked key invalidated the earlier evidence.
// Without it, a server that is down would hide the revocation.
func withRevocation(f, stale *trust.Fault) *trust.Fault {
	if stale == nil || stale.Reason != v1alpha1.ReasonKeyRevoked || f.Reason == v1alpha1.ReasonKeyRevoked {
		return f
	}
	return trust.NewFault(f.Reason, "%w; and the earlier evidence does not count: %w", f, stale)
}

// Recheck implements trust.Root. It verifies the metadata once for all subjects that have it.
func (r *Root) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if _, ok := held.(trust.Unsigned); ok {
		return held, nil // the absence of signatures depends on no pin
	}
	e, ok := held.(*evidence)
	if !ok || e == nil || e.about.Repository != about.Repository || e.about.Tag != about.Tag {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"%s: the earlier evidence is not of this image and format", about)
	}
	p, err := r.repositoryOf(about)
	if err != nil {
		return nil, err
	}
	m, err := p.recheck(e.metadata)
	if m != nil && e.root.epoch == r.epoch {
		p.know(m)
	}
	if err != nil {
		return nil, err
	}
	return r.evidenceOf(p, m, about, r.again(e.lapsed, e.known)).charged(), nil
}

// again returns the view of what was verified before: within the grace it counts past its expiry.
func (r *Root) again(lapsed []string, known bool) view {
	now := r.now()
	return view{at: now.Add(-r.grace), now: now, lapsed: lapsed, known: known}
}
