// Package notation verifies the signatures that notation, of the Notary Project, makes on images.
//
// A signature is a JWS or COSE envelope in a manifest that refers to the image. It has a chain of
// certificates. A role has a trust store of CA certificates, and the subjects that may sign for it:
// a signature counts for the role if its chain has a certificate of the trust store, and its own
// certificate one of the subjects. It must be about the digest of the image and not be expired, its
// certificates must have been valid when it was timestamped, or be valid now, and none of them may
// be revoked. This is the level "strict" of the Notary Project.
//
// A statement says that enough distinct keys of a role have signed the digest. Whether certificates
// are revoked is checked by OCSP and CRL, and the signed answers count until they end. Nothing that
// a registry, an OCSP responder or a server of CRLs says counts by itself.
//
// The package uses the Notary Project's own library for envelopes, chains and timestamps, and not
// its verifier: that has a clock, files, plugins and an HTTP client of its own.
//
// From the bottom up: the subject of a certificate (subject.go), the roles (roles.go), what an
// envelope claims (claim.go), when its certificates were valid (timestamp.go), answers about
// revocation (ocsp.go, crl.go) and how they are fetched and kept (revocation.go), the signatures as
// they are kept (signature.go), fetching them (fetch.go), judging them all (verifier.go), and what
// that says to a policy (evidence.go).
package notation

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// resolveInterval is for how long a registry's answer about a tag counts, by default.
const resolveInterval = 10 * time.Second

// Format builds Roots from the TrustRoots that have spec.notation. Its Roots share what was
// answered about revocation, so it must not be copied after the first Build.
type Format struct {
	// Clock returns the time by which certificates, signatures and answers are judged. Nil:
	// time.Now.
	Clock func() time.Time
	// Hosts bounds the requests to a registry or responder, over all trust roots.
	Hosts *registry.Hosts
	// Budget bounds the memory of decoding, over all trust roots. Nil: each has its own.
	Budget *budget.Budget
	// Keychain finds the pull secrets of namespaces. Nil: none are used.
	Keychain registry.Keychain

	once       sync.Once
	revocation *revocation
}

var _ trust.Format = (*Format)(nil)

// Name implements trust.Format.
func (*Format) Name() string { return "Notation" }

// Of implements trust.Format.
func (*Format) Of(spec *v1alpha1.TrustRootSpec) bool { return spec.Notation != nil }

// Refers implements trust.Format.
func (*Format) Refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	all := registry.Refers(spec.Registries)
	for i := range spec.Notation.Roles {
		all = append(all, trust.Required(spec.Notation.Roles[i].CertificatesFrom...)...)
	}
	if from := spec.Notation.TimestampAuthoritiesFrom; from != nil {
		all = append(all, trust.Required(*from)...)
	}
	return all
}

// Build implements trust.Format.
func (f *Format) Build(tr *v1alpha1.TrustRoot, material trust.Material) (trust.Root, error) {
	clock, decoding := f.Clock, f.Budget
	if clock == nil {
		clock = time.Now
	}
	if decoding == nil {
		decoding = budget.New(budget.Default)
	}
	remaps, err := trust.NewRemaps(tr.Spec.IdentityRemap)
	if err != nil {
		return nil, err
	}
	of, notes, err := newRoles(&tr.Spec, material)
	if err != nil {
		return nil, err
	}
	settings, more, err := registry.Settings(tr.Spec.Registries, material)
	if err != nil {
		return nil, err
	}
	images, err := registry.NewImages(registry.ImagesConfig{Registries: settings, Hosts: f.Hosts, Budget: decoding})
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.registries: %w", err)
	}
	v := &verifier{registry: images, roles: of, budget: decoding, now: clock}
	if tr.Spec.Notation.Revocation != v1alpha1.RevocationSkip {
		f.once.Do(func() { f.revocation = newRevocation(registry.NewResponders(f.Hosts, clock), clock) })
		v.revocation = f.revocation
	}
	interval := resolveInterval
	if tr.Spec.ResolveInterval != nil {
		interval = tr.Spec.ResolveInterval.Duration
	}
	return &Root{
		Root: bydigest.Root{
			Registry: images, Interval: interval, Now: clock, Remaps: remaps, Keychain: f.Keychain, Verifier: v,
		},
		roles: of, notes: append(notes, more...),
	}, nil
}

// Root is the trust.Root of a TrustRoot of this format.
type Root struct {
	bydigest.Root

	roles *roles
	notes []string
}

var (
	_ trust.Root      = (*Root)(nil)
	_ trust.Keeper    = (*Root)(nil)
	_ trust.Described = (*Root)(nil)
)

// Fingerprints implements trust.Described: the IDs of the keys of the trust stores.
func (r *Root) Fingerprints() []string { return r.roles.fingerprints }

// Notes implements trust.Described.
func (r *Root) Notes() []string {
	var revoked []string
	for _, id := range r.roles.fingerprints {
		if r.roles.revoked[id] {
			revoked = append(revoked, id[:shortID])
		}
	}
	if len(revoked) == 0 {
		return r.notes
	}
	return append([]string{fmt.Sprintf("spec.revokedKeys lists keys of trust stores, whose chains do not count: %s",
		strings.Join(revoked, ", "))}, r.notes...)
}
