// Package trustroot builds the roots of the store from TrustRoots and the Secrets and ConfigMaps
// that they refer to. The manager and the command line share it.
//
// It sends no request but those to the API server, publishes nothing, and decides nothing. What is
// wrong with a TrustRoot is the fault of its root, so that the policies that name it deny.
package trustroot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Builder builds roots. It is safe for concurrent use.
type Builder struct {
	// Reader reads the Secrets and ConfigMaps of Namespace, the operator's own.
	Reader    client.Reader
	Namespace string
	// Formats are the formats that a TrustRoot can have.
	Formats []trust.Format
}

// Material is what a TrustRoot refers to, as far as it could be read.
type Material struct {
	// Content is the content of the entries.
	Content trust.Material
	// Missing is the fault of an entry that does not exist; nil: there is none.
	Missing *trust.Fault
}

// format returns the format of a TrustRoot; nil: it has no known format.
func (b *Builder) format(spec *v1alpha1.TrustRootSpec) trust.Format {
	for _, f := range b.Formats {
		if f.Of(spec) {
			return f
		}
	}
	return nil
}

// Refers returns every entry of a Secret or ConfigMap that a TrustRoot refers to.
func (b *Builder) Refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	f := b.format(spec)
	if f == nil {
		return nil
	}
	return f.Refers(spec)
}

// Hash identifies a state of the material.
func (m Material) Hash() string {
	h := sha256.New()
	if m.Missing != nil {
		fmt.Fprintf(h, "%q", m.Missing.Error())
	}
	for _, source := range slices.SortedFunc(maps.Keys(m.Content), compareSources) {
		fmt.Fprintf(h, "%q %q", source, m.Content[source])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func compareSources(a, b v1alpha1.KeySource) int {
	return slices.Compare([]string{a.Kind, string(a.Name), a.Key}, []string{b.Kind, string(b.Name), b.Key})
}

// Gather reads the material that a TrustRoot refers to. The error is one of the API server.
func (b *Builder) Gather(ctx context.Context, tr *v1alpha1.TrustRoot) (Material, error) {
	m := Material{Content: trust.Material{}}
	for _, source := range b.Refers(&tr.Spec) {
		value, found, err := b.read(ctx, source)
		if missing, ok := errors.AsType[*trust.Fault](err); ok {
			m.Missing = missing
			return m, nil
		}
		if err != nil {
			return m, err
		}
		if found {
			m.Content[source.KeySource] = value
		}
	}
	return m, nil
}

// read reads one entry. found is false for an optional entry that the object lacks. Missing
// material is a *trust.Fault; any other error is one of the API server.
func (b *Builder) read(ctx context.Context, source trust.Reference) (value string, found bool, err error) {
	key := client.ObjectKey{Namespace: b.Namespace, Name: string(source.Name)}
	switch source.Kind {
	case "Secret":
		var o corev1.Secret
		err = b.Reader.Get(ctx, key, &o)
		var data []byte
		data, found = o.Data[source.Key]
		value = string(data)
	case "ConfigMap":
		var o corev1.ConfigMap
		err = b.Reader.Get(ctx, key, &o)
		value, found = o.Data[source.Key]
	}
	switch {
	case apierrors.IsNotFound(err) && source.Optional: // another entry of the object may do as well
		return "", false, trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s does not exist; the trust root refers to it", source.Kind, key)
	case apierrors.IsNotFound(err):
		return "", false, trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s does not exist; the trust root refers to its entry %q", source.Kind, key, source.Key)
	case err != nil:
		return "", false, fmt.Errorf("reading %s %s: %w", source.Kind, key, err)
	case !found && !source.Optional:
		return "", false, trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s has no entry %q, to which the trust root refers", source.Kind, key, source.Key)
	}
	return value, found, nil
}

// Build compiles a TrustRoot and its material. What is wrong is the fault of the result.
func (b *Builder) Build(tr *v1alpha1.TrustRoot, m Material) store.Root {
	f := b.format(&tr.Spec)
	switch {
	case f == nil:
		return store.Root{
			Fault: trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec: exactly one format must be set: %s",
				b.formatNames()),
		}
	case m.Missing != nil:
		return store.Root{Format: f.Name(), Fault: m.Missing}
	}
	root, err := f.Build(tr, m.Content)
	if err != nil {
		return store.Root{Format: f.Name(), Fault: trust.AsFault(err, v1alpha1.ReasonInvalidSpec)}
	}
	built := store.Root{Format: f.Name(), Verifier: root, ExpiredGrace: tr.Spec.ExpiredGrace.Duration}
	if described, ok := root.(trust.Described); ok {
		built.Fingerprints, built.Notes = described.Fingerprints(), described.Notes()
	}
	return built
}

// formatNames returns the spec fields of the formats, for a message.
func (b *Builder) formatNames() string {
	names := make([]string, 0, len(b.Formats))
	for _, f := range b.Formats {
		names = append(names, strings.ToLower(f.Name()[:1])+f.Name()[1:])
	}
	return strings.Join(names, ", ")
}
