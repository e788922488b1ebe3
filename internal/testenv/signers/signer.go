// Package signers signs images in every signature format, each with two keys: one for the role ci,
// and one for the role qa.
package signers

import (
	"context"
	"fmt"
	"io"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
)

// The roles for which a Signer signs.
const (
	CI = "ci"
	QA = "qa"
)

// Signer signs images in one format, and runs the servers of that format.
type Signer interface {
	// Prepare makes a repository ready for signatures, where the format needs that. Sign does so
	// too.
	Prepare(ctx context.Context, repository string) error
	// Sign signs an image with the key of a role.
	Sign(ctx context.Context, role string, on Image) error
	// Spec returns a TrustRoot of both roles, for the repositories that are ready by then.
	Spec() (v1alpha1.TrustRootSpec, error)
	// Stop ends the servers.
	Stop() error
}

// Options are the options of a Signer.
type Options struct {
	// Registry has the images.
	Registry *distribution.Server
	// Dir is an empty folder for keys, logs and signatures.
	Dir string
	// Progress receives messages about builds.
	Progress io.Writer
	// Verbose, if set, receives each command line that signs, before it runs. The formats without a
	// command of their own have none: simpleSigning and tuf.
	Verbose func(command string)
}

// The names of the formats, as in the spec of a TrustRoot.
const (
	Notary        = "notary"
	Sigstore      = "sigstore"
	Notation      = "notation"
	SimpleSigning = "simpleSigning"
	TUF           = "tuf"
)

// Formats returns the names of all formats.
func Formats() []string { return []string{Notary, Sigstore, Notation, SimpleSigning, TUF} }

// Start starts the servers of a format, and returns its signer.
func Start(ctx context.Context, format string, o Options) (Signer, error) {
	switch format {
	case Notary:
		return startNotary(ctx, o)
	case Sigstore:
		return startSigstore(ctx, o)
	case Notation:
		return startNotation(ctx, o)
	case SimpleSigning:
		return startSimpleSigning(o)
	case TUF:
		return startTUF()
	}
	return nil, fmt.Errorf("there is no format %q", format)
}

// registriesOf returns the settings with which a trust root reads the registry.
func registriesOf(registry *distribution.Server) []v1alpha1.Registry {
	return []v1alpha1.Registry{{Host: registry.Host, CABundle: v1alpha1.RegistryCABundle(registry.CA.PEM)}}
}
