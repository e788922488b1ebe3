package tuf

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// shareTime is for how long a refresh in the background counts for other subjects too. So the
// requests for a TUF repository do not grow with the number of images that it has.
const shareTime = 10 * time.Second

// metadata is the verified metadata of a TUF repository at one time, with what is computed from it
// once for all subjects.
type metadata struct {
	state  *tufrepo.State
	paths  func() []string // of all targets, sorted
	packed func() []byte
	// charged says that the size of the metadata is counted with the evidence of one subject.
	charged atomic.Bool
}

func newMetadata(s *tufrepo.State) *metadata {
	return &metadata{
		state: s, packed: sync.OnceValue(s.Pack),
		paths: sync.OnceValue(func() []string {
			var all []string
			s.Paths(func(path string) bool {
				all = append(all, path)
				return true
			})
			slices.Sort(all)
			return slices.Clip(slices.Compact(all))
		}),
	}
}

// in returns the target paths of a family with their tags, sorted by path.
func (m *metadata) in(family tufrepo.Family) (tags, paths []string) {
	all := m.paths()
	first, _ := slices.BinarySearch(all, family.Prefix)
	for _, path := range all[first:] {
		if !strings.HasPrefix(path, family.Prefix) {
			break
		}
		if tag, ok := tagIn(family, path); ok {
			tags, paths = append(tags, tag), append(paths, path)
		}
	}
	return tags, paths
}

// newer reports whether metadata is of a later publication than other, by versions that were
// verified. Both may be nil.
func (m *metadata) newer(other *metadata) bool {
	if m == nil || other == nil {
		return m != nil
	}
	is, was := m.state.Versions(), other.state.Versions()
	if is.Root != was.Root {
		return is.Root > was.Root
	}
	return is.Timestamp > was.Timestamp
}

// repository is one TUF repository, for all subjects that it has the signatures of. It is safe for
// concurrent use.
type repository struct {
	client *tufrepo.Client
	turn   chan struct{} // holds one value during a round

	mu        sync.Mutex
	current   *metadata // the newest that was verified; nil: none
	refreshed time.Time // when the last refresh that succeeded began
	active    time.Time // when the last refresh began, or metadata was read from a record
	next      *round    // which has not begun; nil: none

	rechecking sync.Mutex
	rechecked  [maxRechecked]rechecked // the last ones
}

// maxRechecked bounds the metadata of earlier roots that is remembered as verified again. Subjects
// that were refreshed at different times have different metadata.
const maxRechecked = 4

// rechecked is metadata of an earlier root, and what verifying it again came to.
type rechecked struct {
	from weak.Pointer[metadata]
	to   *metadata
	err  error
}

func newRepository(c *tufrepo.Client) *repository {
	return &repository{client: c, turn: make(chan struct{}, 1)}
}

// round is one refresh of the metadata, with what is loaded for the subjects that wait for it. A
// call joins a round only before it begins, so that each call gets what was published before it.
type round struct {
	paths    []string
	families []tufrepo.Family
	done     chan struct{} // closed when it has ended
	result   *metadata
	err      error
}

// want is what a subject needs of the metadata: the files that may list a path, or any path of a
// family.
type want struct {
	path   string // empty: the family
	family tufrepo.Family
}

// know makes metadata the current one, if that is not newer: later rounds never undercut it.
func (p *repository) know(m *metadata) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.newer(p.current) {
		p.current, p.active = m, time.Now()
	}
}

// knownWithin returns the current metadata if a refresh was tried within a time, whatever its
// outcome. Metadata that nothing tries to refresh may lack what was withdrawn long ago.
func (p *repository) knownWithin(d time.Duration) *metadata {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.active) > d {
		return nil
	}
	return p.current
}

// known returns the current metadata; nil: there is none.
func (p *repository) known() *metadata {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// recent returns the current metadata if it was refreshed within shareTime.
func (p *repository) recent() *metadata {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.refreshed) < shareTime {
		return p.current
	}
	return nil
}

// refresh brings the metadata up to date, and loads what a subject needs. All calls that wait share
// one round. The error satisfies errors.Is(err, trust.ErrNotFound) if there is no such TUF
// repository, and is a *trust.Fault otherwise. That a file could not be loaded is no error: the
// metadata says so.
func (p *repository) refresh(ctx context.Context, w want) (*metadata, error) {
	p.mu.Lock()
	r := p.next
	first := r == nil
	if first {
		r = &round{done: make(chan struct{})}
		p.next = r
	}
	if w.path != "" {
		r.paths = append(r.paths, w.path)
	} else {
		r.families = append(r.families, w.family)
	}
	p.mu.Unlock()
	if first {
		p.run(ctx, r)
	}
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		return nil, trust.NewFault(v1alpha1.ReasonTimeout, "waiting for the metadata of the TUF repository: %w",
			ctx.Err())
	}
}

// run waits for the round before, and then runs a round. A panic in the verification of hostile
// metadata fails the round for all.
func (p *repository) run(ctx context.Context, r *round) {
	defer close(r.done)
	r.err = trust.NewFault(v1alpha1.ReasonMetadataInvalid, "the verification of the TUF repository broke off")
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		p.begin()
		r.err = trust.NewFault(v1alpha1.ReasonTimeout, "waiting for the metadata of the TUF repository: %w", ctx.Err())
		return
	}
	for before := p.begin(); ; {
		began := time.Now()
		result, err := p.fetch(ctx, r, before)
		if err != nil {
			r.err = err
			return
		}
		newer := p.replace(before, result, began)
		if newer == nil {
			r.result, r.err = result, nil
			return
		}
		before = newer
	}
}

// replace makes the result of a refresh the current metadata. It does not where a record has
// brought newer metadata since the refresh began, and returns that: a refresh must not undercut it.
func (p *repository) replace(before, result *metadata, began time.Time) (newer *metadata) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != before && p.current.newer(result) {
		return p.current
	}
	p.current, p.refreshed = result, began
	return nil
}

// begin ends the time in which calls can join the round, and returns the current metadata.
func (p *repository) begin() *metadata {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.active = nil, time.Now()
	return p.current
}

// fetch returns newer metadata than before, or before itself if nothing has changed.
func (p *repository) fetch(ctx context.Context, r *round, before *metadata) (*metadata, error) {
	var held *tufrepo.State
	if before != nil {
		held = before.state
	}
	// What could not be loaded is in the State. What other subjects have loaded stays complete, so
	// that the record does too.
	s, err := p.client.Update(ctx, held, r.paths, r.families)
	if err != nil {
		return nil, err
	}
	if s == held {
		return before, nil
	}
	return newMetadata(s), nil
}

// recheck verifies metadata again that another repository has verified, without a network. With an
// error it may return metadata too, which proves nothing: it remembers the versions seen.
func (p *repository) recheck(from *metadata) (*metadata, error) {
	p.rechecking.Lock()
	defer p.rechecking.Unlock()
	for _, c := range p.rechecked {
		if c.from == weak.Make(from) {
			return c.to, c.err
		}
	}
	s, err := p.client.Unpack(context.Background(), from.packed(), nil)
	c := rechecked{from: weak.Make(from), err: err}
	if s != nil {
		c.to = newMetadata(s)
	}
	copy(p.rechecked[1:], p.rechecked[:])
	p.rechecked[0] = c
	return c.to, c.err
}
