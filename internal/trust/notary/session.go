package notary

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// session is one Fetch.
type session struct {
	rootVerifier
	previous *evidence // raw is nil on first sight
	cached files     // of base: its roots and its snapshot, and the others while all is verified
	mu   sync.Mutex
	fetched  map[string][]byte // fetched files that are named by hash
}

// cold brings the first evidence about a repository, nil where it carries no signatures.
func (s *session) fetchNew(ctx context.Context) (*evidence, error) {
	root, timestamp, absent, err := s.fetchRootAndTimestamp(ctx)
	if err != nil {
		return nil, err
	}
	if root == nil && timestamp == nil {
		if s.previous.known {
			return nil, s.missing(rootRole + ".json")
		}
		return nil, s.unsigned(ctx, absent[:]...)
	}
	ev, err := s.verifyNew(ctx, root, timestamp)
	if !newerRootMayHelp(err) {
		return ev, err
	}
	// Someone may have published between the requests.
	again, timestamp, _, errAgain := s.fetchRootAndTimestamp(ctx)
	if errAgain != nil || bytes.Equal(again, root) {
		return nil, err
	}
	return s.verifyNew(ctx, again, timestamp)
}

// first asks for root.json and timestamp.json at once. A file that the server does not have is nil,
// and absent holds how it said so.
func (s *session) fetchRootAndTimestamp(ctx context.Context) (root, timestamp []byte, absent [2]error, err error) {
	g, ctx := errgroup.WithContext(ctx)
	ask := func(into *[]byte, said *error, name string, limit int64) {
		g.Go(func() error {
			raw, err := s.get(ctx, name, limit)
			if errors.Is(err, trust.ErrNotFound) {
				*said = err
				return nil
			}
			*into = raw
			return err
		})
	}
	ask(&root, &absent[0], rootRole+".json", maxRootSize)
	ask(&timestamp, &absent[1], timestampRole+".json", maxTimestampSize)
	err = g.Wait()
	return root, timestamp, absent, err
}

func (s *session) verifyNew(ctx context.Context, root, timestamp []byte) (*evidence, error) {
	if root == nil {
		return nil, s.missing(rootRole + ".json")
	}
	if timestamp == nil {
		return nil, s.missing(timestampRole + ".json")
	}
	roots, err := s.chainToPin(ctx, root)
	if err != nil {
		return nil, err
	}
	return s.load(ctx, roots, len(roots), timestamp)
}

// decodeRoot decodes a root within the budget. The error is a *trust.Fault.
func (s *session) decodeRoot(ctx context.Context, raw []byte) (f *rootFile, err error) {
	err = s.withinBudget(ctx, s.repository, len(raw), func() error {
		f, err = decodeRoot(raw)
		return err
	})
	if err != nil {
		return nil, fault(s.repository, rootRole, fmt.Errorf("is unusable: %w", err))
	}
	return f, nil
}

// backToPin walks from the newest root to the older one that is pinned, and returns the chain
// between them, oldest first. It stops where a step does not hold or the server has no older root;
// the chain then verifies as not pinned. Revoked keys lead on here and nowhere else, so that it is
// known what they break. Each root is verified before the one before it is asked for.
func (s *session) chainToPin(ctx context.Context, newest []byte) ([][]byte, error) {
	roots, size := [][]byte{newest}, len(newest)
	f, err := s.decodeRoot(ctx, newest)
	if err != nil {
		return nil, err
	}
	if !s.withoutRevocations().isSelfSigned(f) {
		return roots, nil // loadRoots says why
	}
	for earlier := false; f.version > 1 && len(roots) <= maxRootSteps && !s.isPinned(f, earlier); earlier = true {
		raw, err := s.get(ctx, rootVersion(f.version-1), maxRootSize)
		if errors.Is(err, trust.ErrNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		if size += len(raw); size > maxChainSize {
			return nil, s.chainTooLong()
		}
		older, err := s.precedingRoot(ctx, f, raw)
		if err != nil {
			return nil, err
		}
		if older == nil {
			break
		}
		roots = append([][]byte{raw}, roots...)
		f = older
	}
	return roots, nil
}

// older decodes the root that f follows. It is nil where raw is none; the error says that it could
// not be looked at.
func (s *session) precedingRoot(ctx context.Context, f *rootFile, raw []byte) (*rootFile, error) {
	older, err := s.decodeRoot(ctx, raw)
	switch {
	case err != nil && trust.AsFault(err, "").Reason != v1alpha1.ReasonMetadataInvalid:
		return nil, err
	case err != nil || s.withoutRevocations().follows(older, f) != nil:
		return nil, nil //nolint:nilerr,nilnil // it leads nowhere
	}
	return older, nil
}

func (s *session) chainTooLong() error {
	return fault(s.repository, rootRole, trust.NewFault(v1alpha1.ReasonTooLarge,
		"and the older roots that lead to it have more than the %d bytes that are read; pin a newer root",
		maxChainSize))
}

// refresh brings the evidence about a known repository up to date.
func (s *session) refresh(ctx context.Context) (*evidence, error) {
	timestamp, err := s.getRequired(ctx, timestampRole+".json", maxTimestampSize)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(timestamp) == s.previous.timestamp && s.at.Before(s.previous.notAfter) {
		return s.previous, nil
	}
	if s.cached, err = s.previous.raw.unpack(isSnapshot); err != nil {
		return nil, err
	}
	trusted := len(s.cached.roots) - 1
	ev, err := s.load(ctx, s.cached.roots, trusted, timestamp)
	if !newerRootMayHelp(err) {
		return ev, err
	}
	roots, errRoots := s.newerRoots(ctx)
	if errRoots != nil {
		return nil, errRoots
	}
	if roots == nil {
		return nil, err
	}
	if timestamp, err = s.getRequired(ctx, timestampRole+".json", maxTimestampSize); err != nil {
		return nil, err
	}
	return s.load(ctx, roots, trusted, timestamp)
}

// newerRoots returns the chain held, extended to the server's newest root; nil where the server has
// none newer.
func (s *session) newerRoots(ctx context.Context) ([][]byte, error) {
	newest, err := s.getRequired(ctx, rootRole+".json", maxRootSize)
	if err != nil {
		return nil, err
	}
	last := s.cached.roots[len(s.cached.roots)-1]
	if bytes.Equal(newest, last) {
		return nil, nil
	}
	from, err := s.decodeRoot(ctx, last)
	if err != nil {
		return nil, err
	}
	to, err := s.decodeRoot(ctx, newest)
	if err != nil {
		return nil, err
	}
	if to.version <= from.version {
		return nil, fault(s.repository, rootRole, trust.NewFault(v1alpha1.ReasonRollback,
			"is version %d and differs from version %d that was seen before; the server offers old or forged metadata",
			to.version, from.version))
	}
	if to.version-from.version > maxRootSteps {
		return nil, fault(s.repository, rootRole,
			fmt.Errorf("is version %d, more than %d steps from version %d that was seen before", to.version,
				maxRootSteps, from.version))
	}
	return s.extendChain(ctx, newest, to, from)
}

// upTo returns the chain held, extended by the roots from the last of it to the newest. Each root
// is verified before the one after it is asked for; that the newest follows is verified with the
// whole.
func (s *session) extendChain(ctx context.Context, newest []byte, to, from *rootFile) ([][]byte, error) {
	roots := slices.Clone(s.cached.roots)
	size := totalSize(roots) + len(newest)
	for v := from.version + 1; v < to.version; v++ {
		raw, err := s.getRequired(ctx, rootVersion(v), maxRootSize)
		if err != nil {
			return nil, err
		}
		next, err := s.decodeRoot(ctx, raw)
		if err != nil {
			return nil, err
		}
		if err := s.withoutRevocations().follows(from, next); err != nil {
			return nil, fault(s.repository, rootRole, err)
		}
		if size += len(raw); size > maxChainSize {
			return nil, s.chainTooLong()
		}
		roots, from = append(roots, raw), next
	}
	return append(roots, newest), nil
}

// load verifies a repository from its roots and timestamp down, asking for what it does not hold.
func (s *session) load(ctx context.Context, roots [][]byte, trusted int, timestamp []byte) (ev *evidence, err error) {
	m := newMetadata(s.rootVerifier, s.previous.seen)
	var meta fileMeta
	err = s.withinBudget(ctx, s.repository, totalSize(roots)+len(timestamp), func() error {
		if err := m.loadRoots(roots, trusted); err != nil {
			return err
		}
		meta, err = m.loadTimestamp(timestamp)
		return err
	})
	if err != nil {
		return nil, err
	}
	snapshot, err := s.fetchSigned(ctx, snapshotRole, meta)
	if err != nil {
		return nil, err
	}
	var listed map[string]fileMeta
	err = s.withinBudget(ctx, s.repository, len(snapshot), func() error {
		listed, err = m.loadSnapshot(snapshot, meta)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.loadListed(ctx, m, listed)
}

// loadListed takes what the snapshot lists. The files stay below the bound on those of all sessions
// of the Root from when the first is asked for until all are verified.
func (s *session) loadListed(ctx context.Context, m *metadata, listed map[string]fileMeta) (ev *evidence, err error) {
	var size int64
	for _, meta := range listed {
		size += meta.length
	}
	if err := s.transfers.Acquire(ctx, size); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonTimeout, "%s: waiting for other repositories with large files: %w",
			s.repository, err)
	}
	defer s.transfers.Release(size)
	small := s.cached.others
	defer func() { // what is kept for another attempt is small
		s.cached.others = small
		maps.DeleteFunc(s.fetched, func(name string, _ []byte) bool { return !strings.HasPrefix(name, snapshotRole) })
	}()
	if s.previous.raw != nil {
		held, err := s.previous.raw.unpack(func(name string, size int) bool {
			meta, ok := listed[name]
			return ok && meta.length == int64(size)
		})
		if err != nil {
			return nil, err
		}
		s.cached.others = held.others
	}
	raw, err := s.fetchListed(ctx, listed)
	if err != nil {
		return nil, err
	}
	err = s.withinBudget(ctx, s.repository, int(size), func() error {
		if err := m.loadTargets(raw); err != nil {
			return err
		}
		ev = m.finish(nil)
		return nil
	})
	return ev, err
}

// all returns targets and every delegation that the snapshot lists. The first fault ends the
// others.
func (s *session) fetchListed(ctx context.Context, listed map[string]fileMeta) (map[string][]byte, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxParallel)
	var mu sync.Mutex
	raw := make(map[string][]byte, len(listed))
	for name, meta := range listed {
		g.Go(func() error {
			data, err := s.fetchSigned(ctx, name, meta)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			raw[name] = data
			return nil
		})
	}
	return raw, g.Wait()
}

// signed returns a file that signed metadata lists: the one held where it is the same, and
// otherwise the server's, read to its signed length.
func (s *session) fetchSigned(ctx context.Context, role string, meta fileMeta) ([]byte, error) {
	if raw, ok := s.cached.others[role]; ok && meta.check(raw) == nil {
		return raw, nil
	}
	name := meta.name(role)
	s.mu.Lock()
	raw, ok := s.fetched[name]
	s.mu.Unlock()
	if ok {
		return raw, nil
	}
	raw, err := s.getRequired(ctx, name, meta.length)
	if err != nil {
		return nil, err
	}
	if err := meta.check(raw); err != nil {
		return nil, fault(s.repository, role, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetched[name] = raw
	return raw, nil
}

// need is get for a file that must be there.
func (s *session) getRequired(ctx context.Context, name string, limit int64) ([]byte, error) {
	raw, err := s.get(ctx, name, limit)
	if errors.Is(err, trust.ErrNotFound) {
		return nil, s.missing(name)
	}
	return raw, err
}

// get returns a file of the server. The error satisfies errors.Is(err, trust.ErrNotFound), or is a
// *trust.Fault.
func (s *session) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	raw, err := s.Root.getter.Get(ctx, s.repository, filePath(s.repository, name), limit)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		return nil, err
	case errors.Is(err, context.DeadlineExceeded):
		err = trust.AsFault(err, v1alpha1.ReasonTimeout)
	case err != nil:
		err = trust.AsFault(err, v1alpha1.ReasonUnreachable)
	case int64(len(raw)) > limit:
		err = trust.NewFault(v1alpha1.ReasonTooLarge, "has more than the %d bytes that it may have", limit)
	default:
		return raw, nil
	}
	f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
	return nil, f.Within("%s: fetching %s: %w", s.repository, name, f)
}

func (s *session) missing(name string) error {
	return trust.NewFault(v1alpha1.ReasonMetadataMissing,
		"%s: the server has no %s, and the repository is known to be signed", s.repository, name)
}

// retry reports whether a newer root may mend an error: where verification failed, and not where an
// answer is wanting.
func newerRootMayHelp(err error) bool {
	var f *trust.Fault
	if !errors.As(err, &f) {
		return false
	}
	switch f.Reason {
	case v1alpha1.ReasonMetadataInvalid, v1alpha1.ReasonMetadataExpired, v1alpha1.ReasonRollback,
		v1alpha1.ReasonKeyRevoked:
		return true
	}
	return false
}

func rootVersion(version int64) string {
	return strconv.FormatInt(version, 10) + "." + rootRole + ".json"
}
