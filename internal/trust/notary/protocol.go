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
	// codeNotFound is the error code by which a Notary server says that it does not have a file. It
	// says so of every path that it does not know, too.
	codeNotFound = "METADATA_NOT_FOUND"
	// probeRepository is asked for to tell a Notary server from an image registry, which answers
	// /v2/ alike. It need not exist.
	probeRepository = "countersign.dev/probe"
)

// proof is what shows that a Notary server answers under the base URL. Without any, that a file is
// not found is no verdict: a Notary server says it of wrong paths too.
type serverIdentity struct {
	// answered says that /v2/ is there under the base URL, by the last answer to a probe.
	answered atomic.Bool
	// verified says that a repository was fetched and verified.
	verified atomic.Bool
	// told says that the server was told from an image registry, as far as it lets us.
	notRegistry atomic.Bool
}

// Probe implements trust.Root. A Notary server and an image registry answer /v2/ alike, so it asks
// for trust data as well until the two are told apart.
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
		r.identity.notRegistry.Store(true) // whoever may not ask for it learns no more
	}
	return nil
}

// probeBase asks whether /v2/ is there under the base URL.
func (r *Root) probeBase(ctx context.Context) error {
	body, err := r.getter.Get(ctx, "", "/v2/", maxProbeSize)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		err = trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"the server has nothing at /v2/ under spec.notary.server, so no Notary server has its base URL there; "+
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

// notNotary returns the fault of a "not found" that is not in the words of a Notary server; nil
// where it is.
func notNotary(err error) error {
	var absent *trust.NotFound
	if errors.As(err, &absent) && absent.Code == codeNotFound {
		return nil
	}
	return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
		"trust data was answered with a 404 that is not a Notary server's (%w), so an image registry or a proxy "+
			"listens there; check spec.notary.server", err)
}

// unsigned returns nil where the answers about root.json and timestamp.json are the verdict that
// the repository carries no signatures: they are in the protocol's own words, and the server has
// proven that it speaks the protocol under this base URL. The error is a *trust.Fault.
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
			"%s: the server says that there is no trust data, and has not shown that it is a Notary server: %w",
			s.repository, f)
	}
	return nil
}
