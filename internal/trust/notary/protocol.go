package notary

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// codeNotFound is the error code of a Notary server for a file that it does not have. It also
	// returns the code for every unknown path.
	codeNotFound = "METADATA_NOT_FOUND"
	// probeRepository is requested to distinguish a Notary server from an image registry, which
	// answers /v2/ in the same way. It need not exist.
	probeRepository = "countersign.dev/probe"
)

// serverIdentity records whether a Notary server answers under the base URL. Without that, a 404 is
// no verdict: a Notary server answers 404 for wrong paths too.
type serverIdentity struct {
	// answered reports that /v2/ exists under the base URL, by the last answer to a probe.
	answered atomic.Bool
	// verified reports that a repository was fetched and verified.
	verified atomic.Bool
	// notRegistry reports that the server is distinguished from an image registry, as far as it
	// grants access.
	notRegistry atomic.Bool
}

// Probe implements trust.Root. A Notary server and an image registry answer /v2/ in the same way.
// So it also requests trust data, until the server is distinguished from a registry.
func (r *Root) Probe(ctx context.Context, _ string) error {
	if err := r.probeBase(ctx); err != nil {
		return err
	}
	if r.identity.verified.Load() || r.identity.notRegistry.Load() {
		return nil
	}
	_, err := r.getter.Get(ctx, probeRepository, filePath(probeRepository, rootRole+".json"), maxRootSize)
	switch f, isFault := errors.AsType[*trust.Fault](err); {
	case errors.Is(err, trust.ErrNotFound):
		if err := notNotary(err); err != nil {
			return err
		}
		r.identity.notRegistry.Store(true)
	case isFault && f.Reason == v1alpha1.ReasonUnexpectedAnswer:
		return f.Within(
			"the server answers /v2/, as an image registry does, and has no Notary API there; check "+
				"spec.notary.server: %w", f)
	case err == nil || isFault && (f.Reason == v1alpha1.ReasonUnauthorized || f.Reason == v1alpha1.ReasonServerError):
		r.identity.notRegistry.Store(true) // without access, nothing more can be found out
	}
	return nil
}

// probeBase checks that /v2/ exists under the base URL.
func (r *Root) probeBase(ctx context.Context) error {
	body, err := r.getter.Get(ctx, "", "/v2/", maxProbeSize)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		err = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"the server answers 404 to /v2/ under spec.notary.server, so that is not the base URL of a Notary server; "+
				"give the URL without a path, or with the one that a proxy needs, and without /v2 and what follows it")
	case err == nil && !json.Valid(body):
		err = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"the server's answer to /v2/ is not JSON, so it is no Notary server; check spec.notary.server")
	}
	if err == nil {
		r.identity.answered.Store(true)
		return nil
	}
	f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
	if f.Reason == v1alpha1.ReasonUnexpectedAnswer {
		r.identity.answered.Store(false)
	}
	return f
}

// notNotary returns a fault if a 404 does not have the error code of a Notary server, and nil if it
// has.
func notNotary(err error) error {
	var absent *trust.NotFound
	if errors.As(err, &absent) && absent.Code == codeNotFound {
		return nil
	}
	return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
		"the server answered 404 for trust data without the error code of a Notary server (%w), so an image "+
			"registry or a proxy listens there; check spec.notary.server", err)
}

// unsigned returns nil if the answers for root.json and timestamp.json prove that the repository
// has no signatures: both have the error code of the protocol, and the server has proven to be a
// Notary server under this base URL. The error is a *trust.Fault.
func (s *session) unsigned(ctx context.Context, answers ...error) error {
	for _, err := range answers {
		if f := notNotary(err); f != nil {
			return trust.AsFault(f, "").Within("%s: %w", s.repository, f)
		}
	}
	if s.identity.answered.Load() || s.identity.verified.Load() {
		return nil
	}
	if err := s.probeBase(ctx); err != nil {
		f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
		return f.Within(
			"%s: the server reports no trust data, but has not proven to be a Notary server: %w",
			s.repository, f)
	}
	return nil
}
