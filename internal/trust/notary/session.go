package notary

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// session is one call of Fetch.
type session struct {
	rootVerifier
	previous *evidence // its raw is nil for a repository that is not known yet
	cached   files     // unpacked from previous: roots and snapshot; during loadListed the other files too
	mu       sync.Mutex
	fetched  map[string][]byte // files that are requested by hash, by name
}

// fetchNew fetches and verifies a repository that is not known yet. It returns nil if the
// repository has no signatures.
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
	// A publication between the two requests can cause the failure.
	again, timestamp, _, errAgain := s.fetchRootAndTimestamp(ctx)
	if errAgain != nil || bytes.Equal(again, root) {
		return nil, err
	}
	return s.verifyNew(ctx, again, timestamp)
}

// fetchRootAndTimestamp requests root.json and timestamp.json in parallel. A file that the server
// does not have is nil, and absent holds the answer.
func (s *session) fetchRootAndTimestamp(ctx context.Context) (root, timestamp []byte, absent [2]error, err error) {
	g, ctx := errgroup.WithContext(ctx)
	fetch := func(into *[]byte, notFound *error, name string, limit int64) {
		g.Go(func() error {
			raw, err := s.get(ctx, name, limit)
			if errors.Is(err, trust.ErrNotFound) {
				*notFound = err
				return nil
			}
			*into = raw
			return err
		})
	}
	fetch(&root, &absent[0], rootRole+".json", maxRootSize)
	fetch(&timestamp, &absent[1], timestampRole+".json", maxTimestampSize)
	err = g.Wait()
	return root, timestamp, absent, err
}

// verifyNew verifies a repository that is not known yet, from its newest root and timestamp.
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

// refresh updates the evidence about a known repository. If verification fails, it tries once more
// from a newer root.
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

// load verifies a repository from its roots and timestamp down. It fetches the files that are not
// cached.
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

// loadListed fetches and verifies the files that the snapshot lists. A semaphore bounds the bytes
// of such files that all sessions of the Root hold, from the first request until all are verified.
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
	defer func() { // a second attempt keeps only the small files
		s.cached.others = small
		maps.DeleteFunc(s.fetched, func(name string, _ []byte) bool { return !strings.HasPrefix(name, snapshotRole) })
	}()
	if s.previous.raw != nil {
		unpacked, err := s.previous.raw.unpack(func(name string, size int) bool {
			meta, ok := listed[name]
			return ok && meta.length == int64(size)
		})
		if err != nil {
			return nil, err
		}
		s.cached.others = unpacked.others
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

// newerRootMayHelp reports whether a newer root may resolve an error: a failed verification, and
// not a failed request.
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
