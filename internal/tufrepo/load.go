package tufrepo

import (
	"context"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Load fetches and verifies the delegated files that may have signed the paths, and returns a State
// with them: held itself if it has them all. Each file is fetched once, however many paths and
// delegations lead to it. With an error, which is a *trust.Fault, it still returns a State with
// everything else; Signed then names what is Missing.
func (c *Client) Load(ctx context.Context, held *State, paths ...string) (*State, error) {
	return c.load(ctx, held, nil, c.missingOf(paths))
}

func (c *Client) missingOf(paths []string) func(*State) []edge {
	return func(s *State) (missing []edge) {
		for _, path := range paths {
			missing = append(missing, s.walk(path, c.now()).missing...)
		}
		return missing
	}
}

// Family is a set of paths: all that begin with Prefix, end with Suffix, and have no slash between.
type Family struct{ Prefix, Suffix string }

// LoadFamilies is Load for every path of some families. Of hash bins that may have any of them, it
// loads all that the snapshot lists, within the bounds.
func (c *Client) LoadFamilies(ctx context.Context, held *State, families ...Family) (*State, error) {
	return c.load(ctx, held, nil, missingOfFamilies(families))
}

func missingOfFamilies(families []Family) func(*State) []edge {
	return func(s *State) (missing []edge) {
		for _, family := range families {
			missing = append(missing, s.unverifiedOf(family)...)
		}
		return missing
	}
}

// LoadAll is Load for every path: it fetches every delegated file that the snapshot lists, within
// the bounds. It serves questions about a digest whose path is not known.
func (c *Client) LoadAll(ctx context.Context, held *State) (*State, error) {
	return c.load(ctx, held, nil, func(s *State) []edge { return s.unverified(true) })
}

// Update is Refresh, followed by Load, LoadFamilies, and Load of every file that was loaded once
// and has changed since. The error is that of Refresh; the State says what could not be loaded.
// Where nothing is held, and the snapshot lists only a few delegated files, it fetches these beside
// targets.json, which saves a round trip for each level of delegations.
func (c *Client) Update(ctx context.Context, held *State, paths []string, families []Family) (*State, error) {
	early := &earlyFiles{}
	s, err := c.refresh(ctx, held, early)
	if err != nil {
		return nil, err
	}
	for _, missing := range []func(*State) []edge{
		missingOfChanged, c.missingOf(paths), missingOfFamilies(families),
	} {
		loaded, err := c.load(ctx, s, early, missing)
		if loaded == nil {
			return nil, err
		}
		s = loaded
	}
	return s, nil
}

func missingOfChanged(s *State) []edge {
	return slices.DeleteFunc(s.unverified(true), func(e edge) bool {
		name, _ := e.child()
		_, changed := s.changed[name]
		return !changed
	})
}

// load loads what missing returns, until it returns nothing that can be loaded.
func (c *Client) load(ctx context.Context, held *State, early *earlyFiles, missing func(*State) []edge) (*State,
	error) {
	if err := c.check(held); err != nil {
		return nil, err
	}
	s, failed := held, map[edge]bool{}
	var first error
	for {
		var edges []edge
		seen := map[edge]bool{}
		for _, e := range missing(s) {
			if !failed[e] && !seen[e] {
				seen[e] = true
				edges = append(edges, e)
			}
		}
		if len(edges) == 0 {
			break
		}
		s = s.withRoom()
		raw := c.fetchFiles(ctx, s, early, edges)
		for _, e := range edges {
			if err := c.addEdge(ctx, s, e, raw); err != nil {
				name, _ := e.child()
				failed[e] = true
				fault := c.fault(name+".json", err)
				s.failed[name] = trust.AsFault(fault, v1alpha1.ReasonMetadataInvalid)
				if first == nil {
					first = fault
				}
			}
		}
	}
	return s, first
}

// withRoom returns a copy that can be added to.
func (s *State) withRoom() *State {
	next := *s
	next.files, next.edges, next.changed = maps.Clone(s.files), maps.Clone(s.edges), maps.Clone(s.changed)
	next.failed = map[string]*trust.Fault{}
	maps.Copy(next.failed, s.failed)
	return &next
}

// fetched is the result of a request for a delegated file.
type fetched struct {
	raw []byte
	err error
}

// fetchFiles fetches the files that delegations lead to and that are neither loaded nor fetched
// early, by role. It ends at the bounds: what is beyond has a fault.
func (c *Client) fetchFiles(ctx context.Context, s *State, early *earlyFiles, edges []edge) map[string]fetched {
	files, size := s.loadedSize()
	var mu sync.Mutex
	all, requested := map[string]fetched{}, map[string]bool{}
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for _, e := range edges {
		name, _ := e.child()
		listed, ok := s.snapshot.listed[name]
		if !ok || requested[name] || s.files[name] != nil {
			continue
		}
		requested[name] = true
		files++
		fits := files <= maxFiles
		g.Go(func() error {
			answer := fetched{err: trust.NewFault(v1alpha1.ReasonTooLarge,
				"it is not loaded: the delegated files would exceed %d files or %d bytes", maxFiles, maxTotalSize)}
			var raw []byte
			err := error(nil)
			if was, ok := early.get(name); ok && fits {
				raw, err = was.raw, was.err
			} else if fits {
				raw, err = c.getRole(ctx, s, name, listed, maxTargetsSize)
			}
			mu.Lock()
			defer mu.Unlock()
			size += int64(len(raw))
			if err != nil || fits && size <= maxTotalSize {
				answer = fetched{raw: raw, err: err}
			}
			all[name] = answer
			return nil
		})
	}
	_ = g.Wait() // the errors are in all
	return all
}

// addEdge verifies a delegation and adds the verdict to s, with the file if its role has signed it.
//
// What the snapshot binds by a hash is the file, whoever has signed it: if its role has not, that
// is a verdict. Without a hash, any server can answer with a file that the role has not signed, so
// that is a fault, and the next Load tries again. That revoked keys have signed is a verdict.
func (c *Client) addEdge(ctx context.Context, s *State, e edge, answers map[string]fetched) error {
	name, role := e.child()
	listed, ok := s.snapshot.listed[name]
	if !ok {
		delete(s.failed, name)
		s.edges[e] = verdict{why: "is not listed in snapshot.json: it has never been published"}
		return nil
	}
	f, loaded := s.files[name]
	raw := answers[name].raw
	if loaded {
		raw = f.raw
	} else if answers[name].err != nil {
		return answers[name].err
	}
	if err := listed.check(raw); err != nil {
		return err
	}
	var keys []Key
	err := c.withinBudget(ctx, raw, func() error {
		opened, envelope, err := openTargets(name, listed, raw)
		if err == nil {
			keys, err = role.verify(envelope, c.revoked)
		}
		if !loaded {
			f = opened
		}
		return err
	})
	reason := trust.AsFault(err, v1alpha1.ReasonMetadataInvalid).Reason
	switch {
	case err == nil:
	case reason == v1alpha1.ReasonTooLarge, reason == v1alpha1.ReasonTimeout,
		!loaded && !listed.hashed() && reason != v1alpha1.ReasonKeyRevoked:
		return err
	default:
		delete(s.failed, name)
		s.edges[e] = verdict{why: "does not count: " + err.Error(), listed: listed}
		return nil
	}
	if before, ok := s.changed[name]; ok && before.version == f.version && before.digest != f.digest {
		return replaced(f.version)
	}
	delete(s.changed, name)
	delete(s.failed, name)
	s.files[name], s.edges[e] = f, verdict{to: f, keys: keys, listed: listed}
	return nil
}
