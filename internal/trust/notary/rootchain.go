package notary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// decodeRoot decodes a root within the memory budget. The error is a *trust.Fault.
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

// chainToPin follows the root versions back from the newest to the newest pinned one, and returns
// that chain, oldest first. It stops at a root that does not lead to the next one, or where the
// server has no earlier root; verification then reports that the root is not pinned. Revoked keys
// count while the chain is collected, so that the fault can name the key whose revocation breaks
// it; load refuses them. Each root is verified before the one before it is requested.
func (s *session) chainToPin(ctx context.Context, newest []byte) ([][]byte, error) {
	roots, size := [][]byte{newest}, len(newest)
	f, err := s.decodeRoot(ctx, newest)
	if err != nil {
		return nil, err
	}
	if !s.withoutRevocations().isSelfSigned(f) {
		return roots, nil // loadRoots reports why
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

// precedingRoot decodes the root before f. It returns nil if raw is not that root. The error means
// that raw could not be checked.
func (s *session) precedingRoot(ctx context.Context, f *rootFile, raw []byte) (*rootFile, error) {
	older, err := s.decodeRoot(ctx, raw)
	switch {
	case err != nil && trust.AsFault(err, "").Reason != v1alpha1.ReasonMetadataInvalid:
		return nil, err
	case err != nil || s.withoutRevocations().follows(older, f) != nil:
		return nil, nil //nolint:nilerr,nilnil // not the root before f
	}
	return older, nil
}

// newerRoots returns the known chain, extended to the newest root of the server. It returns nil if
// the server has no newer root.
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

// extendChain returns the known chain with the later roots up to the newest appended. Each root is
// verified before the one after it is requested. The newest is verified later, by load.
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

// chainTooLong returns the fault of a root chain that exceeds maxChainSize.
func (s *session) chainTooLong() error {
	return fault(s.repository, rootRole, trust.NewFault(v1alpha1.ReasonTooLarge,
		"and the older roots that lead to it have more than the %d bytes that are read; pin a newer root",
		maxChainSize))
}

// rootVersion returns the name of a root file of one version.
func rootVersion(version int64) string {
	return strconv.FormatInt(version, 10) + "." + rootRole + ".json"
}
