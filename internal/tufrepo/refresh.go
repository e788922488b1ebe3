package tufrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Refresh fetches what has changed and returns the next State (section 5.3 to 5.6). held is the
// result of an earlier Refresh, Load or Unpack of this client, or nil. Where nothing has changed,
// Refresh returns held itself, after two small requests. Delegated files that have not changed stay
// loaded. On an error held stays valid. The error satisfies errors.Is(err, trust.ErrNotFound) if
// held is nil and the server has neither a timestamp nor a newer root, and is a *trust.Fault
// otherwise.
func (c *Client) Refresh(ctx context.Context, held *State) (*State, error) {
	return c.refresh(ctx, held, nil)
}

// refresh is Refresh. Where no files are held, it fetches delegated files early, beside
// targets.json.
func (c *Client) refresh(ctx context.Context, held *State, early *earlyFiles) (*State, error) {
	if err := c.check(held); err != nil {
		return nil, err
	}
	now := c.now()
	timestamp := c.fetchEarly(ctx, timestampRole+".json", maxTimestampSize)
	roots, err := c.fetchRoots(ctx, held)
	first := timestamp() // waits, so that no request outlives Refresh
	if err != nil {
		return nil, err
	}
	next := &State{roots: roots}
	if err := next.root().checkExpiry(now); err != nil {
		return nil, c.fault("root.json", err)
	}
	before, err := c.versionsToKeep(ctx, held, next.root())
	if err != nil {
		return nil, err
	}
	if err := c.fetchTimestamp(ctx, first, next, held, before, now); err != nil {
		return nil, err
	}
	sameRoot := held != nil && held.root() == next.root()
	if sameRoot && next.timestamp == held.timestamp && !held.expired {
		if err := c.checkExpiry(held, now); err != nil {
			return nil, err
		}
		return held, nil
	}
	if err := c.fetchSnapshot(ctx, next, before, sameRoot, now); err != nil {
		return nil, err
	}
	if before == nil {
		defer early.fetch(ctx, c, next)()
	}
	if err := c.fetchTargets(ctx, next, before, sameRoot, now); err != nil {
		return nil, err
	}
	next.keepDelegated(before)
	return next, nil
}

// fetchRoots returns the roots from the pinned one to the newest one (section 5.3). A server that
// has no next root, or refuses access to it as file servers do for a file that does not exist, ends
// the walk. That is safe: whoever can feign it can also withhold the root. The expiry of the other
// files bounds for how long.
func (c *Client) fetchRoots(ctx context.Context, held *State) ([]*rootFile, error) {
	roots := []*rootFile{c.pin}
	if held != nil {
		roots = held.roots[:len(held.roots):len(held.roots)]
	}
	for {
		newest := roots[len(roots)-1]
		name := fmt.Sprintf("%d.root.json", newest.version+1)
		raw, err := c.get(ctx, c.metadata+"/"+name, maxRootSize)
		if errors.Is(err, trust.ErrNotFound) ||
			err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonUnauthorized {
			return roots, nil
		}
		if err != nil {
			return nil, err
		}
		if len(roots) > maxRoots {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge,
				"%s: more than %d roots follow the pinned one; pin a newer root", c.name, maxRoots)
		}
		next, err := c.nextRoot(ctx, newest, raw)
		if err != nil {
			return nil, c.fault(name, err)
		}
		roots = append(roots, next)
	}
}

// nextRoot verifies a root: the one before it and itself must have signed it, and its version is
// the next one. Whether it has expired matters only if it is the newest.
func (c *Client) nextRoot(ctx context.Context, before *rootFile, raw []byte) (*rootFile, error) {
	var next *rootFile
	err := c.withinBudget(ctx, raw, func() error {
		r, e, err := openRoot(raw)
		if err != nil {
			return err
		}
		if _, err := before.roles[rootRole].verify(e, c.revoked); err != nil {
			if _, unsigned := errors.AsType[*unsignedError](err); unsigned {
				return trust.NewFault(v1alpha1.ReasonRootNotPinned,
					"the root before it, version %d, does not vouch for it: %w", before.version, err)
			}
			return err
		}
		if r.version != before.version+1 {
			return fmt.Errorf("it has version %d, and %d comes next", r.version, before.version+1)
		}
		if _, err := r.roles[rootRole].verify(e, c.revoked); err != nil {
			return fmt.Errorf("its own root keys: %w", err)
		}
		next = r
		return nil
	})
	return next, err
}

// versionsToKeep returns the State whose versions must not be undercut: held, or nil if there is
// none. If a newer root replaced the keys of timestamp or snapshot, so that the held files are not
// signed any more, versions start anew: that is the recovery from a fast-forward attack (section
// 5.3.11).
func (c *Client) versionsToKeep(ctx context.Context, held *State, root *rootFile) (*State, error) {
	if held == nil || held.root() == root {
		return held, nil
	}
	recovered := false
	err := c.withinBudget(ctx, held.snapshot.raw, func() error {
		_, err := c.openSigned(timestampRole, root, held.timestamp.raw)
		if err == nil {
			_, err = c.openSigned(snapshotRole, root, held.snapshot.raw)
		}
		recovered = err != nil
		return nil
	})
	if recovered {
		return nil, err
	}
	return held, err
}

// fetchTimestamp sets the timestamp (section 5.4) from an answer that was requested beside the
// root. After a new root, an answer that does not count may be older than that root: its keys may
// be those of the root before. Then the timestamp is fetched again.
func (c *Client) fetchTimestamp(ctx context.Context, first fetched, next, held, before *State, now time.Time) error {
	err := c.acceptTimestamp(ctx, first, next, held, before, now)
	known := 1
	if held != nil {
		known = len(held.roots)
	}
	if err == nil || len(next.roots) == known {
		return err
	}
	again := c.fetchEarly(ctx, timestampRole+".json", maxTimestampSize)()
	return c.acceptTimestamp(ctx, again, next, held, before, now)
}

// acceptTimestamp verifies and sets the timestamp. Where the version is the one of before, it is
// the same timestamp.
func (c *Client) acceptTimestamp(ctx context.Context, got fetched, next, held, before *State, now time.Time) error {
	const name = timestampRole + ".json"
	raw, err := got.raw, got.err
	if errors.Is(err, trust.ErrNotFound) {
		if held == nil && len(next.roots) == 1 {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		return trust.NewFault(v1alpha1.ReasonMetadataMissing,
			"%s: the server has no timestamp.json, and the repository is known to exist", c.name)
	}
	if err != nil {
		return err
	}
	if before != nil && bytes.Equal(raw, before.timestamp.raw) {
		next.timestamp = before.timestamp
	} else if err := c.withinBudget(ctx, raw, func() (err error) {
		next.timestamp, err = c.verifyTimestamp(next.root(), raw)
		return err
	}); err != nil {
		return c.fault(name, err)
	}
	if before != nil {
		switch was, is := before.timestamp, next.timestamp; {
		case is.version < was.version:
			return c.fault(name, rolledBack("it", is.version, was.version))
		case is.version == was.version:
			next.timestamp = was
		case is.snapshot.version < was.snapshot.version:
			return c.fault(name, rolledBack("its entry snapshot.json", is.snapshot.version, was.snapshot.version))
		}
	}
	if err := next.timestamp.checkExpiry(now); err != nil {
		return c.fault(name, err)
	}
	return nil
}

// fetchSnapshot sets the snapshot that the timestamp lists (section 5.5).
func (c *Client) fetchSnapshot(ctx context.Context, next, before *State, sameRoot bool, now time.Time) error {
	const name = snapshotRole + ".json"
	listed := next.timestamp.snapshot
	if unchanged := before != nil && before.snapshot.version == listed.version &&
		listed.check(before.snapshot.raw) == nil; unchanged && sameRoot {
		next.snapshot = before.snapshot
	} else {
		var raw []byte
		var err error
		if unchanged {
			raw = before.snapshot.raw
		} else if raw, err = c.getRole(ctx, next, snapshotRole, listed, maxSnapshotSize); err != nil {
			return err
		}
		if err := c.withinBudget(ctx, raw, func() (err error) {
			next.snapshot, err = c.verifySnapshot(next.root(), listed, raw)
			return err
		}); err != nil {
			return c.fault(name, err)
		}
	}
	if before != nil {
		if err := next.snapshot.checkNoRollback(before.snapshot); err != nil {
			return c.fault(name, err)
		}
	}
	if err := next.snapshot.checkExpiry(now); err != nil {
		return c.fault(name, err)
	}
	return nil
}

// fetchTargets sets the top-level targets that the snapshot lists (section 5.6).
func (c *Client) fetchTargets(ctx context.Context, next, before *State, sameRoot bool, now time.Time) error {
	const name = targetsRole + ".json"
	listed := next.snapshot.listed[targetsRole]
	if unchanged := before != nil && before.targets.version == listed.version &&
		listed.check(before.targets.raw) == nil; unchanged && sameRoot {
		next.targets = before.targets
	} else {
		var raw []byte
		var err error
		if unchanged {
			raw = before.targets.raw
		} else if raw, err = c.getRole(ctx, next, targetsRole, listed, maxTargetsSize); err != nil {
			return err
		}
		if err := c.withinBudget(ctx, raw, func() (err error) {
			next.targets, err = c.verifyTargets(next.root(), listed, raw)
			return err
		}); err != nil {
			return c.fault(name, err)
		}
	}
	if before != nil && next.targets.version == before.targets.version &&
		next.targets.digest != before.targets.digest {
		return c.fault(name, replaced(next.targets.version))
	}
	if err := next.targets.checkExpiry(now); err != nil {
		return c.fault(name, err)
	}
	return nil
}

// getRole fetches the file of a role other than root and timestamp. With consistent snapshots its
// version is in its name.
func (c *Client) getRole(ctx context.Context, s *State, role string, listed meta, most int64) ([]byte, error) {
	if listed.length > most {
		return nil, fmt.Errorf("%s: %w", c.name, tooLong(role, listed.length, most))
	}
	name := url.PathEscape(role) + ".json"
	if s.root().consistent {
		name = fmt.Sprintf("%d.%s", listed.version, name)
	}
	return c.getListed(ctx, c.metadata+"/"+name, listed.limit(most))
}

// keepDelegated takes from the State before it the delegated files that the snapshot still lists,
// and the verified delegations between them.
func (s *State) keepDelegated(before *State) {
	s.files, s.edges, s.changed = map[string]*targetsFile{}, map[edge]verdict{}, map[string]seen{}
	if before == nil {
		return
	}
	maps.Copy(s.changed, before.changed)
	for name, f := range before.files {
		if listed, ok := s.snapshot.listed[name]; ok && listed.version == f.version && listed.check(f.raw) == nil {
			s.files[name] = f
		} else {
			s.changed[name] = seen{version: f.version, digest: f.digest}
		}
	}
	for e, v := range before.edges {
		if e.from != s.targets && s.files[e.from.name] != e.from {
			continue
		}
		if name, _ := e.child(); s.snapshot.listed[name] == v.listed && (v.to == nil || s.files[name] == v.to) {
			s.edges[e] = v
		}
	}
}

// child returns the role name of a delegation, and who must sign it.
func (e edge) child() (string, role) {
	if e.from.bins != nil {
		return e.from.bins.name(e.index), e.from.bins.role
	}
	d := &e.from.delegations[e.index]
	return d.name, d.role
}
