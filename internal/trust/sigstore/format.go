// Package sigstore verifies the signatures that cosign makes on images.
//
// A signature is in the registry, beside the image or in a repository of its own, in one of two
// layouts: as a layer under the tag sha256-<hex>.sig, or as a Sigstore bundle in a manifest that
// refers to the image. Both are read, side by side, and count alike.
//
// The digest binds a signature to an image. A statement says that enough distinct keys of a role
// have signed the digest. An attestation, a signed statement of another type, never stands in for a
// signature, nor a signature for an attestation. Nothing that a registry says counts by itself.
//
// Attestations are fetched only if a role needs any, beside the signatures and apart from them:
// from the tag sha256-<hex>.att, and as bundles. The newest of a type decides. So if any of them
// may be unread or could not be verified, no attestation proves a role.
//
// From the bottom up: a key and the schemes of its signatures (keys.go), the roles and whose key is
// whose (roles.go), what one signature claims (claim.go), the signatures as they are kept
// (signature.go), fetching both layouts (fetch.go, fetchbundles.go), judging them all
// (verifier.go), and what that says to a policy (evidence.go). Of attestations: as they are kept
// (attested.go), fetching them (fetchattested.go), and judging them (attest.go).
package sigstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	sigstoreroot "github.com/sigstore/sigstore-go/pkg/root"
	"golang.org/x/sync/semaphore"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/tufroot"
)

// resolveInterval is for how long a registry's answer about a tag counts, by default.
const resolveInterval = 10 * time.Second

// Format builds Roots from the TrustRoots that have spec.sigstore.
type Format struct {
	// Clock returns the time by which answers about tags age. Nil: time.Now.
	Clock func() time.Time
	// Hosts bounds the requests to a registry, over all trust roots.
	Hosts *registry.Hosts
	// Budget bounds the memory of decoding, over all trust roots. Nil: each has its own.
	Budget *budget.Budget
	// Keychain finds the pull secrets of namespaces. Nil: none are used.
	Keychain registry.Keychain
}

var _ trust.Format = Format{}

// Name implements trust.Format.
func (Format) Name() string { return "Sigstore" }

// Of implements trust.Format.
func (Format) Of(spec *v1alpha1.TrustRootSpec) bool { return spec.Sigstore != nil }

// Refers implements trust.Format.
func (Format) Refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	all := registry.Refers(spec.Registries)
	for i := range spec.Sigstore.Roles {
		all = append(all, trust.Required(spec.Sigstore.Roles[i].KeysFrom...)...)
	}
	if r := spec.Sigstore.TrustedRoot; r != nil && r.From != nil {
		all = append(all, trust.Required(*r.From)...)
	}
	return append(all, referredByTUF(spec.Sigstore)...)
}

// Build implements trust.Format.
func (f Format) Build(tr *v1alpha1.TrustRoot, material trust.Material) (trust.Root, error) {
	spec := tr.Spec.Sigstore
	remaps, err := trust.NewRemaps(tr.Spec.IdentityRemap)
	if err != nil {
		return nil, err
	}
	of, err := newRoles(&tr.Spec, material)
	if err != nil {
		return nil, err
	}
	trusted, err := inlineRoot(spec, of, material)
	if err != nil {
		return nil, err
	}
	if err := checkRepository(spec.SignatureRepository); err != nil {
		return nil, err
	}
	settings, notes, err := registry.Settings(tr.Spec.Registries, material)
	if err != nil {
		return nil, err
	}
	if f.Budget == nil {
		f.Budget = budget.New(budget.Default)
	}
	if f.Clock == nil {
		f.Clock = time.Now
	}
	source, skipped, err := f.source(spec, material)
	if err != nil {
		return nil, err
	}
	notes = append(notes, skipped...)
	images, err := registry.NewImages(registry.ImagesConfig{Registries: settings, Hosts: f.Hosts, Budget: f.Budget})
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.registries: %w", err)
	}
	interval := resolveInterval
	if tr.Spec.ResolveInterval != nil {
		interval = tr.Spec.ResolveInterval.Duration
	}
	v := &verifier{
		registry: images, roles: of, repository: spec.SignatureRepository, budget: f.Budget,
		match:   spec.SignedRepository == v1alpha1.SignedRepositoryMatch,
		trusted: trusted, log: spec.TransparencyLog, packer: &bydigest.Packer{},
		transfers: semaphore.NewWeighted(maxTransfers), now: f.Clock,
	}
	root := &Root{
		Root: bydigest.Root{
			Registry: images, Interval: interval, Now: f.Clock, Remaps: remaps, Signatures: spec.SignatureRepository,
			Keychain: f.Keychain, Verifier: v,
		},
		verifier: v, roles: of, notes: notes, source: source,
		lacks: func(r *trustedroot.Root) error { return checkRoot(spec, of, r) },
	}
	if source != nil {
		root = root.on(root.readBase(nil, nil))
	}
	return root, nil
}

// inlineRoot reads the trusted root of a Secret or ConfigMap. The result is nil if the spec names
// none. The error is a *trust.Fault and names the field.
func inlineRoot(spec *v1alpha1.SigstoreSpec, of *roles, material trust.Material) (func() (*trustedroot.Root, error),
	error) {
	if spec.TrustedRoot != nil && spec.TrustedRoot.TUF != nil {
		return nil, nil // it is fetched
	}
	if spec.TrustedRoot == nil || spec.TrustedRoot.From == nil {
		// The API server refuses both.
		if of.identified || spec.TransparencyLog == v1alpha1.TransparencyLogRequire {
			return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.sigstore.trustedRoot: is required where a "+
				"role has identities, and with transparencyLog: Require")
		}
		return nil, nil
	}
	source := *spec.TrustedRoot.From
	field := fmt.Sprintf("spec.sigstore.trustedRoot.from (%s %s, entry %s)", source.Kind, source.Name, source.Key)
	parsed, err := trustedroot.Parse([]byte(material[source]))
	if err == nil {
		err = checkRoot(spec, of, parsed)
	}
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s: %w", field, err)
	}
	parsed = parsed.Without(of.revoked)
	return func() (*trustedroot.Root, error) { return parsed, nil }, nil
}

// checkRoot refuses a trusted root with which a role could never be proven.
func checkRoot(spec *v1alpha1.SigstoreSpec, of *roles, root *trustedroot.Root) error {
	switch {
	case of.identified && len(root.FulcioCertificateAuthorities()) == 0:
		return errors.New("lists no certificate authority, so that identities could never sign")
	case spec.TransparencyLog == v1alpha1.TransparencyLogRequire && len(root.RekorLogs()) == 0:
		return errors.New("lists no transparency log, and transparencyLog is Require")
	case of.identified && spec.TransparencyLog == v1alpha1.TransparencyLogIgnore &&
		len(root.TimestampingAuthorities()) == 0:
		return errors.New("lists no timestamp authority, which identities need with transparencyLog: Ignore")
	case of.identified && len(root.TimestampingAuthorities()) == 0 && len(root.RekorLogs()) == 0:
		return errors.New("lists neither a transparency log nor a timestamp authority, and identities need one")
	}
	return nil
}

// checkRepository refuses a signatureRepository that no reference to an image can name.
func checkRepository(repository string) error {
	if repository == "" {
		return nil
	}
	ref, err := imageref.Parse(repository)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.sigstore.signatureRepository: %w", err)
	}
	if ref.Repository() != repository {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.sigstore.signatureRepository: %q is read as the "+
			"repository %q; write that", repository, ref.Repository())
	}
	return nil
}

// Root is the trust.Root of a TrustRoot of this format.
type Root struct {
	bydigest.Root
	verifier *verifier
	roles    *roles
	notes    []string

	// source is the TUF repository of the trusted root, and base what was fetched from there. Nil:
	// there is none.
	source *tufroot.Source
	base   base
	// lacks says what a trusted root does not list, so that some role could never be proven.
	lacks func(*trustedroot.Root) error
}

var (
	_ trust.Root      = (*Root)(nil)
	_ trust.Keeper    = (*Root)(nil)
	_ trust.Described = (*Root)(nil)
)

// maxFingerprints bounds those that the status has.
const maxFingerprints = 256

// Fingerprints implements trust.Described: the SHA-256 of the root certificates of the trusted
// root, of all authorities by which identities sign, and the IDs of the keys. The keys give way
// where there are too many.
func (r *Root) Fingerprints() []string {
	var all []string
	if root, err := r.verifier.trustedRoot(); err == nil && root != nil && r.roles.identified {
		for _, authority := range root.FulcioCertificateAuthorities() {
			if fulcio, ok := authority.(*sigstoreroot.FulcioCertificateAuthority); ok && fulcio.Root != nil {
				all = append(all, hexSHA256(fulcio.Root.Raw))
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for _, id := range r.roles.fingerprints() {
		if len(all) < maxFingerprints && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// Notes implements trust.Described.
func (r *Root) Notes() []string {
	var revoked []string
	for _, id := range r.roles.fingerprints() {
		if r.roles.revoked[id] {
			revoked = append(revoked, short(id))
		}
	}
	notes := append(r.baseNotes(), r.notes...)
	if len(revoked) == 0 {
		return notes
	}
	return append([]string{fmt.Sprintf("spec.revokedKeys lists keys of roles, which do not count: %s",
		strings.Join(revoked, ", "))}, notes...)
}
