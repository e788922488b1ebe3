package notarysign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime/multipart"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	maxKeyAnswer  = 64 << 10
	maxPostAnswer = 64 << 10
)

// ErrConflict is the error of a publication that another one preceded. Nothing was published.
var ErrConflict = errors.New("another publication came first; nothing was changed, run it again")

// Server is a Notary server. *registry.Client implements it, with Config.Publishes.
type Server interface {
	Get(ctx context.Context, repository, path string, limit int64) ([]byte, error)
	Post(ctx context.Context, repository, path, content string, body []byte, limit int64) ([]byte, error)
}

// folder returns the path of a repository's files on the server.
func folder(repository string) string { return "/v2/" + repository + "/_trust/tuf/" }

// serverKey returns the public key of a role that the server signs. The server makes the key if it
// has none. With rotate it makes a new one, which counts once a root lists it.
func serverKey(ctx context.Context, s Server, repository, role string, rotate bool) (PublicKey, error) {
	at := folder(repository) + role + ".key"
	var raw []byte
	var err error
	if rotate {
		raw, err = s.Post(ctx, repository, at, "application/json", nil, maxKeyAnswer)
	} else {
		raw, err = s.Get(ctx, repository, at, maxKeyAnswer)
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("requesting the server's key for the %s: %w", role, err)
	}
	var k metadataKey
	if err := json.Unmarshal(raw, &k); err != nil || k.Type == "" || len(k.Value.Public) == 0 {
		return PublicKey{}, fmt.Errorf("the server sent no readable key for the %s; is it a Notary server?", role)
	}
	k.Value.Private = nil
	public, _, err := k.read()
	return public, err
}

// post publishes files, by role, in one request.
func post(ctx context.Context, s Server, repository string, files map[string][]byte) error {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, role := range slices.Sorted(maps.Keys(files)) {
		part, err := w.CreateFormFile("files", role)
		if err != nil {
			return fmt.Errorf("writing the request: %w", err)
		}
		if _, err := part.Write(files[role]); err != nil {
			return fmt.Errorf("writing the request: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("writing the request: %w", err)
	}
	_, err := s.Post(ctx, repository, folder(repository), w.FormDataContentType(), body.Bytes(), maxPostAnswer)
	return explain(err, files)
}

// explain says what a refusal of the server means.
func explain(err error, files map[string][]byte) error {
	refusal, ok := errors.AsType[*registry.Refusal](err)
	if !ok {
		return err
	}
	switch {
	case refusal.Code == "VERSION", strings.Contains(refusal.Detail, "must increment the version"):
		return ErrConflict
	case refusal.Code == "INVALID_ROLE" && slices.ContainsFunc(slices.Collect(maps.Keys(files)), isDelegation):
		return fmt.Errorf("this Notary server refuses all delegations, because it was built with Go 1.17 or later; "+
			"build it with Go 1.16, or with the name of an uploaded file read from its header (%w)", refusal)
	case refusal.Name == "ErrBadHierarchy" && strings.Contains(refusal.Detail, RoleSnapshot):
		return fmt.Errorf("the snapshot key of the repository is neither at the server nor in the key store; load it, "+
			"or move it to the server with 'trust key rotate REPOSITORY snapshot' where the root key is (%w)", refusal)
	}
	return fmt.Errorf("%w; if somebody else published in the meantime, run it again", refusal)
}

// isRefused reports whether the server certainly did not accept a publication.
func isRefused(err error) bool {
	if _, ok := errors.AsType[*registry.Refusal](err); ok || errors.Is(err, ErrConflict) {
		return true
	}
	f, ok := errors.AsType[*trust.Fault](err)
	return ok && (f.Refused || f.Reason == v1alpha1.ReasonUnauthorized || f.Reason == v1alpha1.ReasonTLSNotTrusted)
}

func isDelegation(role string) bool { return strings.HasPrefix(role, RoleTargets+"/") }
