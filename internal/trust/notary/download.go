package notary

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// fetchListed returns targets and every delegation that the snapshot lists. The first fault cancels
// the other requests.
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

// fetchSigned returns a file that signed metadata lists. It returns the cached file if that is the
// listed one, and otherwise requests it and reads it to its signed length.
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

// getRequired is get for a file that must exist. A missing one is a fault.
func (s *session) getRequired(ctx context.Context, name string, limit int64) ([]byte, error) {
	raw, err := s.get(ctx, name, limit)
	if errors.Is(err, trust.ErrNotFound) {
		return nil, s.missing(name)
	}
	return raw, err
}

// get requests a file from the server. The error satisfies errors.Is(err, trust.ErrNotFound) or is
// a *trust.Fault.
func (s *session) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	raw, err := s.getter.Get(ctx, s.repository, filePath(s.repository, name), limit)
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

// missing returns the fault of a file that a signed repository must have.
func (s *session) missing(name string) error {
	return trust.NewFault(v1alpha1.ReasonMetadataMissing,
		"%s: the server has no %s, and the repository is known to be signed", s.repository, name)
}
