package bydigest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// MaxSignatures bounds the signatures on a digest that are read in each layout.
	MaxSignatures = 64
	// MaxSignature bounds one signature, and the manifest of one, in bytes. A bound on all of them
	// together would let a large file keep out the signatures that are listed after it.
	MaxSignature = 64 << 10
	// maxManifestValues bounds the JSON values of a signature's manifest, and manifestCost the
	// memory that decoding takes up, by byte of it.
	maxManifestValues = 16 << 10
	manifestCost      = 8
)

// Manifest is what is read of the manifest of signatures.
type Manifest struct {
	ArtifactType string `json:"artifactType"`
	Config       struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Layers []registry.Descriptor `json:"layers"`
}

// Kind returns the type of the artifact. Before OCI 1.1, the type of the config was that.
func (m *Manifest) Kind() string {
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	return m.Config.MediaType
}

// Decode decodes the manifest of signatures within a budget. Without an error and without why, it
// has a layer. why says that it is none. The error is a *trust.Fault.
func Decode(ctx context.Context, of *budget.Budget, m registry.Manifest) (read Manifest, why string, err error) {
	if n, ok := jsonscan.Count(m.Body, maxManifestValues); !ok || n == maxManifestValues {
		return read, "has a manifest that is not JSON, or is too large", nil
	}
	release, err := Acquire(ctx, of, manifestCost*int64(len(m.Body)))
	if err != nil {
		return read, "", err
	}
	defer release()
	if json.Unmarshal(m.Body, &read) != nil || len(read.Layers) == 0 {
		return Manifest{}, "has a manifest without layers", nil
	}
	return read, "", nil
}

// Acquire reserves the memory to decode a signature. The caller must call release. The error is a
// *trust.Fault.
func Acquire(ctx context.Context, of *budget.Budget, cost int64) (release func(), err error) {
	release, err = of.Acquire(ctx, cost)
	if err == nil {
		return release, nil
	}
	reason := v1alpha1.ReasonTimeout
	if _, tooLarge := errors.AsType[*budget.TooLargeError](err); tooLarge {
		reason = v1alpha1.ReasonTooLarge
	}
	return nil, trust.NewFault(reason, "a signature: %w", err)
}

// TooLong says that a part of a signature has more bytes than any signature.
func TooLong(what string) string {
	return fmt.Sprintf("has a %s of more than %d KiB, which no signature has", what, MaxSignature>>10)
}

// TooMany is the fault of n signatures on one digest, which are more than are read.
func TooMany(where string, n int) *trust.Fault {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: %d signatures, of which only the first %d are read; remove "+
		"those that are not needed", where, n, MaxSignatures)
}

// Missing makes the absence of something that the registry has named a fault.
func Missing(where string, err error) error {
	if errors.Is(err, trust.ErrNotFound) {
		return trust.NewFault(v1alpha1.ReasonMetadataMissing, "%s: a part of the signatures is missing: %w", where, err)
	}
	return err
}
