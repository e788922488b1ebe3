// Package bydigest is what the formats that sign digests share.
//
// Such a format finds the signatures of an image at a registry, by the digest of the image. For a
// tag the registry says which digest it has: a hint, which proves nothing. So each tag and each
// digest is a subject. A format supplies a Verifier, which fetches and verifies the signatures on
// one digest. Root adds the hints, the names and the records. It never makes a statement itself.
package bydigest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/hint"
)

// Verifier fetches and verifies the signatures of one format. It is safe for concurrent use.
type Verifier interface {
	// Fetch fetches the signatures on the digest of a subject, and verifies them. It has the
	// contract of trust.Root.Fetch.
	Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error)
	// Recheck verifies evidence again, without a network. It has the contract of
	// trust.Root.Recheck.
	Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error)
	// Pack encodes the signatures in evidence of this format, so that Unpack can verify them again.
	// It returns nil where there is nothing to record. The error is a *trust.Fault.
	Pack(held trust.Evidence) ([]byte, error)
	// Unpack verifies the signatures of a record, without a network. It returns held where the
	// record adds nothing. The error is a *trust.Fault.
	Unpack(about trust.Subject, packed []byte, held trust.Evidence) (trust.Evidence, error)
}

// Registry reads image registries: *registry.Images.
type Registry interface {
	hint.Resolver
	// Probe checks that a registry answers. The error is a *trust.Fault.
	Probe(ctx context.Context, host string) error
}

// Root is the trust.Root of a format that signs digests. All fields but Remaps, Signatures and
// Keychain are required.
type Root struct {
	Registry Registry
	Verifier Verifier
	// Interval is for how long the answer of a registry about a tag counts. Zero: each decision
	// sends a request.
	Interval time.Duration
	Now      func() time.Time
	// Remaps map a repository to the name under which it is signed.
	Remaps trust.Remaps
	// Signatures is the repository that has the signatures. Empty: that of the image.
	Signatures string
	// Keychain finds the pull secrets of namespaces. Nil: none are used.
	Keychain registry.Keychain
}

var (
	_ trust.Root     = (*Root)(nil)
	_ trust.Keeper   = (*Root)(nil)
	_ trust.Tenanted = (*Root)(nil)
)

// Subject implements trust.Root: the digest of the image, or its tag if it has no digest.
func (r *Root) Subject(image imageref.Ref) trust.Subject {
	about := trust.Subject{Repository: r.Remaps.Signed(image), Pulled: image.Name()}
	if image.Digest != "" {
		about.Digest = image.Digest
	} else {
		about.Tag = image.Tag
	}
	return about
}

// Host implements trust.Root: the registry of the image for a tag, and the registry of the
// signatures for a digest.
func (r *Root) Host(about trust.Subject) string {
	repository := about.Pulled
	if about.Digest != "" && r.Signatures != "" {
		repository = r.Signatures
	}
	host, _, _ := strings.Cut(repository, "/")
	return host
}

// Tenant implements trust.Tenanted.
func (r *Root) Tenant(about trust.Subject, namespace string) (trust.Subject, bool) {
	about.Tenant = namespace
	return about, r.Keychain != nil
}

// Probe implements trust.Root. With pull secrets in use, a registry that refuses the credentials of
// the trust root is not down: it may accept those of a namespace.
func (r *Root) Probe(ctx context.Context, host string) error {
	err := r.Registry.Probe(ctx, host)
	if r.Keychain != nil && refused(err) {
		return nil
	}
	return err
}

// Fetch implements trust.Root: it resolves a tag, or fetches the signatures on a digest. It reads
// the registry for a tenant with the pull secrets of the tenant alone.
//
// If the pull secrets are refused, the evidence held before ends. Otherwise a namespace could keep
// evidence by withdrawing its own pull secrets, after a signature was removed.
func (r *Root) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if about.Tenant == "" {
		return r.fetch(ctx, about, held)
	}
	if r.Keychain == nil {
		return nil, &trust.Fault{Reason: v1alpha1.ReasonUnauthorized, Ends: true, Err: fmt.Errorf(
			"%s: pull secrets are not in use (--use-pull-secrets)", about)}
	}
	evidence, err := r.fetch(registry.WithKeychain(ctx, r.Keychain, about.Tenant), about, held)
	if refused(err) {
		f := *trust.AsFault(err, v1alpha1.ReasonUnauthorized)
		f.Ends = true
		return nil, &f
	}
	return evidence, err
}

func (r *Root) fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if about.Digest == "" {
		return r.tags().Fetch(ctx, about, held)
	}
	return r.Verifier.Fetch(ctx, about, held)
}

// refused reports whether an error is the refusal of a registry or its token service.
func refused(err error) bool {
	return err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonUnauthorized
}

// Recheck implements trust.Root.
func (r *Root) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	switch e := held.(type) {
	case *hint.Evidence:
		return r.tags().Recheck(e), nil
	case trust.Unsigned:
		return e, nil
	}
	if about.Digest == "" {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the evidence is not an answer about a tag",
			about)
	}
	return r.Verifier.Recheck(about, held)
}

func (r *Root) tags() hint.Tags {
	return hint.Tags{Resolver: r.Registry, Interval: r.Interval, Now: r.Now}
}
