package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// extensionHeader announces the signature extension of a registry, with the value 1.
	extensionHeader = "X-Registry-Supports-Signatures"
	// extensionVersion and extensionType are those of an OpenPGP signature in the extension.
	extensionVersion = 2
	extensionType    = "atomic"
	// maxSignatureList bounds a list of signatures, in bytes, and maxSignatureValues its JSON
	// values.
	maxSignatureList   = 8 << 20
	maxSignatureValues = 64 << 10
)

// Signatures returns the simple signing signatures that a registry has for a digest, by its
// signature extension (X-Registry-Supports-Signatures), in the registry's order. Entries of other
// types are left out. The list is empty if the registry has none. A registry that has no such
// extension is a fault. The error is a *trust.Fault.
func (i *Images) Signatures(ctx context.Context, repository, digest string) ([][]byte, error) {
	return read(ctx, i, repository, func(at imageRepository) ([][]byte, error) { return i.signatures(ctx, at, digest) })
}

func (i *Images) signatures(ctx context.Context, at imageRepository, digest string) ([][]byte, error) {
	target, err := at.client.target("/extensions/v2/" + at.path + "/signatures/" + digest)
	if err != nil {
		return nil, err
	}
	resp, body, err := at.client.send(ctx, at.path, request{target: target, limit: maxSignatureList})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, at.announced(ctx, resp)
	}
	if err := at.client.checkResponse(resp, body); err != nil {
		return nil, trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer)
	}
	where := shownURL(target)
	if n, ok := jsonscan.Count(body, maxSignatureValues); !ok || n == maxSignatureValues {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the list of signatures is no JSON, or has more than %d values", where, maxSignatureValues)
	}
	release, err := i.cfg.Budget.Acquire(ctx, decodedCost*int64(len(body)))
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonTimeout, "%s: %w", where, err)
	}
	defer release()
	return decodeSignatures(where, body)
}

// decodeSignatures decodes a list of signatures. An entry that cannot be decoded spoils no other:
// it is an empty signature.
func decodeSignatures(where string, body []byte) ([][]byte, error) {
	var list struct {
		Signatures *entries `json:"signatures"`
	}
	list.Signatures = &entries{missing: true}
	if err := json.Unmarshal(body, &list); err != nil || list.Signatures != nil && list.Signatures.missing {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the answer is no list of signatures", where)
	}
	if list.Signatures == nil { // null, as a registry writes an empty list
		return nil, nil
	}
	var all [][]byte
	for _, raw := range list.Signatures.all {
		var s struct {
			Version int    `json:"schemaVersion"`
			Type    string `json:"type"`
			Content []byte `json:"content"`
		}
		switch err := json.Unmarshal(raw, &s); {
		case err != nil:
			all = append(all, nil)
		case s.Version == extensionVersion && s.Type == extensionType:
			all = append(all, s.Content)
		}
	}
	return all, nil
}

// entries are those of a list, which is missing until one is decoded.
type entries struct {
	missing bool
	all     []json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (e *entries) UnmarshalJSON(data []byte) error {
	e.missing = false
	return json.Unmarshal(data, &e.all)
}

// announced checks, after a 404, that the registry announces the extension: in that answer, or at
// its base endpoint. Then the 404 says that there are no signatures.
func (r imageRepository) announced(ctx context.Context, resp *http.Response) error {
	if resp.Header.Get(extensionHeader) == "1" {
		return nil
	}
	target, err := r.client.target("/v2/")
	if err != nil {
		return err
	}
	base, body, err := r.client.send(ctx, r.path, request{target: target, limit: maxErrorBody})
	if err != nil {
		return err
	}
	if base.Header.Get(extensionHeader) == "1" {
		return nil
	}
	if err := r.client.checkResponse(base, body); err != nil && !errors.Is(err, trust.ErrNotFound) {
		return err
	}
	return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
		"%s: the registry announces no signature extension (header %s: 1); set spec.simpleSigning.lookaside to where "+
			"the signatures are", shownURL(target), extensionHeader)
}
