// Package simplesigning verifies the signatures that GPG makes on images (simple signing), as the
// container tools podman, skopeo and CRI-O, and OpenShift know them.
//
// A signature is an OpenPGP message with a JSON document, which names a digest and a reference. It
// is on a lookaside server, or in the registry behind its signature extension. The digest binds a
// signature to an image, and the reference to its name, by one of the rules of
// containers-policy.json(5).
//
// A statement says that enough distinct OpenPGP keys of a role have signed the digest. A primary
// key and its subkeys are one key. A key that is revoked never counts, and one that has expired no
// longer, whatever time a signature claims. Nothing that a server says counts by itself.
//
// From the bottom up: the OpenPGP keys and which of them may sign (keys.go), the roles (roles.go),
// one signed message (message.go), its document (payload.go), the rules for its name (identity.go),
// fetching (fetch.go), the signatures as they are kept (signature.go), judging them all
// (verifier.go), and what that says to a policy (evidence.go).
package simplesigning

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// resolveInterval is for how long a registry's answer about a tag counts, by default.
const resolveInterval = 10 * time.Second

// Format builds Roots from the TrustRoots that have spec.simpleSigning.
type Format struct {
	// Clock returns the time by which keys and signatures expire, and answers about tags age. Nil:
	// time.Now.
	Clock func() time.Time
	// Hosts bounds the requests to a host, over all trust roots.
	Hosts *registry.Hosts
	// Budget bounds the memory of decoding, over all trust roots. Nil: each has its own.
	Budget *budget.Budget
	// Keychain finds the pull secrets of namespaces. Nil: none are used.
	Keychain registry.Keychain
	// Timeout bounds one request. Zero: 45 seconds.
	Timeout time.Duration
}

var _ trust.Format = Format{}

// Name implements trust.Format.
func (Format) Name() string { return "SimpleSigning" }

// Of implements trust.Format.
func (Format) Of(spec *v1alpha1.TrustRootSpec) bool { return spec.SimpleSigning != nil }

// Refers implements trust.Format.
func (Format) Refers(spec *v1alpha1.TrustRootSpec) []trust.Reference {
	all := registry.Refers(spec.Registries)
	if from := spec.SimpleSigning.LookasideCABundleFrom; from != nil {
		all = append(all, trust.Required(*from)...)
	}
	for i := range spec.SimpleSigning.Roles {
		all = append(all, trust.Required(spec.SimpleSigning.Roles[i].KeysFrom...)...)
	}
	return all
}

// Build implements trust.Format.
func (f Format) Build(tr *v1alpha1.TrustRoot, material trust.Material) (trust.Root, error) {
	remaps, err := trust.NewRemaps(tr.Spec.IdentityRemap)
	if err != nil {
		return nil, err
	}
	if f.Budget == nil {
		f.Budget = budget.New(budget.Default)
	}
	if f.Clock == nil {
		f.Clock = time.Now
	}
	of, err := newRoles(&tr.Spec, material)
	if err != nil {
		return nil, err
	}
	named, err := newIdentity(tr.Spec.SimpleSigning.SignedIdentity, len(remaps) > 0)
	if err != nil {
		return nil, err
	}
	settings, notes, err := registry.Settings(tr.Spec.Registries, material)
	if err != nil {
		return nil, err
	}
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: settings, Hosts: f.Hosts, Budget: f.Budget, Timeout: f.Timeout,
	})
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.registries: %w", err)
	}
	r := &Root{
		Root: bydigest.Root{
			Registry: images, Interval: resolveInterval, Now: f.Clock, Remaps: remaps, Keychain: f.Keychain,
		},
		roles: of, now: f.Clock, notes: notes,
	}
	if tr.Spec.ResolveInterval != nil {
		r.Interval = tr.Spec.ResolveInterval.Duration
	}
	if err := r.addLookaside(tr.Spec.SimpleSigning, material, &f); err != nil {
		return nil, err
	}
	source := source(fromRegistry{images})
	if r.lookaside != nil {
		source = fromLookaside{r.lookaside}
	}
	r.Verifier = &verifier{source: source, roles: of, identity: named, budget: f.Budget, now: f.Clock}
	return r, nil
}

// addLookaside adds the lookaside server of the spec, if it has one.
func (r *Root) addLookaside(spec *v1alpha1.SimpleSigningSpec, material trust.Material, f *Format) error {
	if spec.Lookaside == "" {
		return nil
	}
	bundle, field := string(spec.LookasideCABundle), "spec.simpleSigning.lookasideCABundle"
	if from := spec.LookasideCABundleFrom; from != nil {
		bundle = material[*from]
		field = fmt.Sprintf("%sFrom (%s %s, entry %s)", field, from.Kind, from.Name, from.Key)
	}
	if bundle != "" || spec.LookasideCABundleFrom != nil {
		read, err := cabundle.Read([]byte(bundle), 0, nil)
		if err != nil {
			return trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", field, err)
		}
		for _, skipped := range read.Skipped {
			r.notes = append(r.notes, fmt.Sprintf("%s: skipped %s", field, skipped))
		}
	}
	at, err := url.Parse(spec.Lookaside)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.simpleSigning.lookaside: it is not a URL")
	}
	files, err := registry.NewLookaside(spec.Lookaside, bundle, f.Hosts, f.Timeout)
	if err != nil {
		return trust.NewFault(v1alpha1.ReasonInvalidSpec, "spec.simpleSigning.lookaside: %w", err)
	}
	r.lookaside, r.host = files, at.Host
	return nil
}

// Root is the trust.Root of a TrustRoot of this format.
type Root struct {
	bydigest.Root
	roles *roles
	now   func() time.Time
	notes []string
	// lookaside has the signatures, and host is its host. Nil: the registry of the image has them.
	lookaside *registry.Files
	host      string
}

var (
	_ trust.Root      = (*Root)(nil)
	_ trust.Keeper    = (*Root)(nil)
	_ trust.Tenanted  = (*Root)(nil)
	_ trust.Described = (*Root)(nil)
)

// Host implements trust.Root: the registry for a tag, and the lookaside server for a digest.
func (r *Root) Host(about trust.Subject) string {
	if r.lookaside != nil && about.Tag == "" {
		return r.host
	}
	return r.Root.Host(about)
}

// Probe implements trust.Root.
func (r *Root) Probe(ctx context.Context, host string) error {
	if r.lookaside != nil && host == r.host {
		return r.lookaside.Probe(ctx)
	}
	return r.Root.Probe(ctx, host)
}

// Tenant implements trust.Tenanted. No pull secret is ever sent to a lookaside server, so that what
// it serves is the same for every namespace.
func (r *Root) Tenant(about trust.Subject, namespace string) (trust.Subject, bool) {
	if r.lookaside != nil && about.Digest != "" {
		return about, false
	}
	return r.Root.Tenant(about, namespace)
}

// Fingerprints implements trust.Described: those of the primary keys.
func (r *Root) Fingerprints() []string { return r.roles.fingerprints() }

// Notes implements trust.Described: the keys that do not count, and why.
func (r *Root) Notes() []string { return append(r.roles.notes(r.now()), r.notes...) }
