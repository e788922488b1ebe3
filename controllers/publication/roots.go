package publication

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// RootBuilder makes what the store holds of a TrustRoot.
type RootBuilder struct {
	// Reader reads Secrets and ConfigMaps of Namespace, the operator's own.
	Reader    client.Reader
	Namespace string
	// Formats are those that a TrustRoot can have.
	Formats []trust.Format
}

// format returns that of a TrustRoot; nil: it has none that is known.
func (b RootBuilder) format(spec *v1alpha1.TrustRootSpec) trust.Format {
	for _, f := range b.Formats {
		if f.Of(spec) {
			return f
		}
	}
	return nil
}

// refers lists every entry of a Secret or ConfigMap that a TrustRoot refers to.
func (b RootBuilder) refers(spec *v1alpha1.TrustRootSpec) []v1alpha1.KeySource {
	f := b.format(spec)
	if f == nil {
		return nil
	}
	return f.Refers(spec)
}

// materialHash tells one state of the material, or one fault in gathering it, from another.
func materialHash(m trust.Material, fault *trust.Fault) string {
	h := sha256.New()
	if fault != nil {
		fmt.Fprintf(h, "%q", fault.Error())
	}
	for _, source := range slices.SortedFunc(maps.Keys(m), compareSources) {
		fmt.Fprintf(h, "%q %q", source, m[source])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func compareSources(a, b v1alpha1.KeySource) int {
	return slices.Compare([]string{a.Kind, string(a.Name), a.Key}, []string{b.Kind, string(b.Name), b.Key})
}

// gather reads what the TrustRoot refers to. What is missing is a *trust.Fault, anything else an
// error of the API server.
func (b RootBuilder) gather(ctx context.Context, tr *v1alpha1.TrustRoot) (trust.Material, error) {
	m := trust.Material{}
	for _, source := range b.refers(&tr.Spec) {
		value, err := b.read(ctx, source)
		if err != nil {
			return m, err
		}
		m[source] = value
	}
	return m, nil
}

func (b RootBuilder) read(ctx context.Context, source v1alpha1.KeySource) (string, error) {
	key := client.ObjectKey{Namespace: b.Namespace, Name: string(source.Name)}
	var value string
	var found bool
	var err error
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
	case apierrors.IsNotFound(err):
		return "", trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s does not exist; the trust root refers to its entry %q", source.Kind, key, source.Key)
	case err != nil:
		return "", fmt.Errorf("reading %s %s: %w", source.Kind, key, err)
	case !found:
		return "", trust.NewFault(v1alpha1.ReasonReferenceNotFound,
			"%s %s has no entry %q, to which the trust root refers", source.Kind, key, source.Key)
	}
	return value, nil
}

// build compiles a TrustRoot and what it refers to. What is wrong is in the result.
func (b RootBuilder) build(tr *v1alpha1.TrustRoot, material trust.Material) store.Root {
	f := b.format(&tr.Spec)
	if f == nil {
		return store.Root{
			Fault: trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec: exactly one format must be set: %s",
				b.formatNames()),
		}
	}
	root, err := f.Build(tr, material)
	if err != nil {
		return store.Root{Format: f.Name(), Fault: trust.AsFault(err, v1alpha1.ReasonInvalidSpec)}
	}
	built := store.Root{Format: f.Name(), Root: root, ExpiredGrace: tr.Spec.ExpiredGrace.Duration}
	if described, ok := root.(trust.Described); ok {
		built.Fingerprints, built.Notes = described.Fingerprints(), described.Notes()
	}
	return built
}

// faulty returns what the store holds of a TrustRoot whose material could not be gathered.
func (b RootBuilder) faulty(tr *v1alpha1.TrustRoot, fault *trust.Fault) store.Root {
	r := store.Root{Fault: fault}
	if f := b.format(&tr.Spec); f != nil {
		r.Format = f.Name()
	}
	return r
}

// formatNames returns the fields of the formats, for a message.
func (b RootBuilder) formatNames() string {
	names := make([]string, 0, len(b.Formats))
	for _, f := range b.Formats {
		names = append(names, strings.ToLower(f.Name()[:1])+f.Name()[1:])
	}
	return strings.Join(names, ", ")
}
