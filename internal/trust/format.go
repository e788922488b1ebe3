package trust

import (
	"fmt"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
)

// Format builds Roots from the TrustRoots of one format. It is safe for concurrent use.
type Format interface {
	// Name returns the name of the format in status and metrics: "Notary".
	Name() string
	// Of reports whether a TrustRoot has this format.
	Of(spec *v1alpha1.TrustRootSpec) bool
	// Refers lists every entry of a Secret or ConfigMap that a TrustRoot refers to.
	Refers(spec *v1alpha1.TrustRootSpec) []Reference
	// Build compiles a TrustRoot. It makes no request. The error is a *Fault with one of the
	// reasons of the Ready condition, and names the field.
	Build(tr *v1alpha1.TrustRoot, material Material) (Root, error)
}

// Reference is an entry of a Secret or ConfigMap that a TrustRoot refers to.
type Reference struct {
	v1alpha1.KeySource
	// Optional says that the object may lack the entry, which the Material then lacks too. The
	// object itself must exist.
	Optional bool
}

// Required returns the references to entries that must exist.
func Required(sources ...v1alpha1.KeySource) []Reference {
	all := make([]Reference, 0, len(sources))
	for _, source := range sources {
		all = append(all, Reference{KeySource: source})
	}
	return all
}

// Material is the content of the Secrets and ConfigMaps that a TrustRoot refers to, by source.
type Material map[v1alpha1.KeySource]string

// Described is a Root that adds to the status of its TrustRoot.
type Described interface {
	// Fingerprints returns the fingerprints of the pinned root of trust, sorted.
	Fingerprints() []string
	// Notes says which of the material does not count, and why.
	Notes() []string
}

// NewRemaps reads the identity remapping of a TrustRoot. It refuses a prefix with which no
// repository's name can begin: it would silently never apply. The error is a *Fault.
func NewRemaps(spec []v1alpha1.IdentityRemap) (Remaps, error) {
	var all Remaps
	for i, m := range spec {
		for _, p := range []struct{ field, prefix string }{{"prefix", m.Prefix}, {"signedPrefix", m.SignedPrefix}} {
			if fault := checkPrefix(fmt.Sprintf("spec.identityRemap[%d].%s", i, p.field), p.prefix); fault != nil {
				return nil, fault
			}
		}
		all = append(all, Remap{Prefix: m.Prefix, SignedPrefix: m.SignedPrefix})
	}
	return all, nil
}

func checkPrefix(field, prefix string) *Fault {
	const rest = "a/b"
	ref, err := imageref.Parse(prefix + rest)
	if err != nil {
		return NewFault(v1alpha1.ReasonInvalidSpec, "%s: %w", field, err)
	}
	if read := strings.TrimSuffix(ref.Name(), rest); read != prefix {
		return NewFault(v1alpha1.ReasonInvalidSpec, "%s: %q is the same as %q in another spelling; write that", field,
			prefix, read)
	}
	return nil
}
