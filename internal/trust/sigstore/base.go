package sigstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/tufroot"
)

// A TrustRoot may have its trusted root from a TUF repository. Then that is the base of the Root
// (trust.Based): evidence of its own, which is fetched, recorded and verified apart from the
// images.

var _ trust.Based = (*Root)(nil)

// referredByTUF lists the entries that spec.sigstore.trustedRoot.tuf refers to.
func referredByTUF(spec *v1alpha1.SigstoreSpec) []trust.Reference {
	if spec.TrustedRoot == nil || spec.TrustedRoot.TUF == nil {
		return nil
	}
	var all []trust.Reference
	for _, source := range []*v1alpha1.KeySource{spec.TrustedRoot.TUF.CABundleFrom, spec.TrustedRoot.TUF.RootFrom} {
		if source != nil {
			all = append(all, trust.Required(*source)...)
		}
	}
	return all
}

// source returns the TUF repository of the trusted root, nil if the spec names none. notes says
// which certificates of its CA bundle do not count. The error is a *trust.Fault and names the
// field.
func (f Format) source(spec *v1alpha1.SigstoreSpec, material trust.Material) (s *tufroot.Source, notes []string,
	err error) {
	if spec.TrustedRoot == nil || spec.TrustedRoot.TUF == nil {
		return nil, nil, nil
	}
	tuf, field := spec.TrustedRoot.TUF, "spec.sigstore.trustedRoot.tuf"
	cfg := tufroot.Config{
		Mirror: tuf.Mirror, CABundle: string(tuf.CABundle), Hosts: f.Hosts, Budget: f.Budget, Clock: f.Clock,
		Check: func(raw []byte) error {
			_, err := trustedroot.Parse(raw)
			return err
		},
	}
	bundle, root := field+".caBundle", field
	if from := tuf.CABundleFrom; from != nil {
		cfg.CABundle = material[*from]
		bundle = fmt.Sprintf("%sFrom (%s %s, entry %s)", bundle, from.Kind, from.Name, from.Key)
	}
	if cfg.CABundle != "" || tuf.CABundleFrom != nil {
		read, err := cabundle.Read([]byte(cfg.CABundle), 0, nil)
		if err != nil {
			return nil, nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", bundle, err)
		}
		for _, skipped := range read.Skipped {
			notes = append(notes, fmt.Sprintf("%s: skipped %s", bundle, skipped))
		}
	}
	if from := tuf.RootFrom; from != nil {
		cfg.Root = []byte(material[*from])
		root = fmt.Sprintf("%s.rootFrom (%s %s, entry %s)", field, from.Kind, from.Name, from.Key)
	}
	s, err = tufroot.New(cfg)
	if wrong, ok := errors.AsType[*tufroot.RootError](err); ok {
		return nil, nil, trust.NewFault(v1alpha1.ReasonInvalidKey, "%s: %w", root, wrong)
	}
	if err != nil {
		return nil, nil, trust.NewFault(v1alpha1.ReasonInvalidSpec, "%s.mirror: %w", field, err)
	}
	return s, notes, nil
}

// base is a state of the trusted root that is fetched by TUF.
type base struct {
	// root is nil where there is none that counts, and then fault says why.
	root  *trustedroot.Root
	fault *trust.Fault
	// text describes it in the status.
	text string
}

// trusted implements verifier.trusted.
func (b base) trusted() (*trustedroot.Root, error) {
	if b.root == nil {
		return nil, b.fault
	}
	return b.root, nil
}

// HasBase implements trust.Based.
func (r *Root) HasBase() bool { return r.source != nil }

// WithBase implements trust.Based.
func (r *Root) WithBase(held trust.Evidence, fault *trust.Fault) trust.Root {
	if r.source == nil {
		return r
	}
	next := r.readBase(held, fault)
	was := r.base
	switch {
	case was.root == nil && next.root == nil && was.fault.Reason == next.fault.Reason,
		was.root != nil && next.root != nil && was.root.ID() == next.root.ID():
		return r
	}
	return r.on(next)
}

// readBase reads a state of the base. Without a usable trusted root it has a fault.
func (r *Root) readBase(held trust.Evidence, fault *trust.Fault) base {
	if fetched, ok := held.(*tufroot.Base); ok {
		parsed, err := trustedroot.Parse(fetched.TrustedRoot())
		if err == nil {
			return base{root: parsed.Without(r.roles.revoked), text: fetched.String()}
		}
		fault = trust.NewFault(v1alpha1.ReasonMetadataInvalid, "it %w", err)
	}
	if fault == nil {
		return base{fault: trust.NewFault(v1alpha1.ReasonNotLoaded,
			"the trusted root of %s is being fetched; try again", r.source.Mirror())}
	}
	// Neither a pause of the mirror nor what it ends concerns the registry.
	return base{fault: trust.NewFault(fault.Reason, "the trusted root of %s is not available: %w", r.source.Mirror(),
		fault.Err)}
}

// on returns the Root that verifies with a state of the base.
func (r *Root) on(b base) *Root {
	next, v := *r, *r.verifier
	v.trusted = b.trusted
	next.base, next.verifier, next.Verifier = b, &v, &v
	return &next
}

// Host implements trust.Root. The mirror is a host of its own, with its URL as the name: no
// registry has such a name.
func (r *Root) Host(about trust.Subject) string {
	if r.source != nil && about == trust.BaseSubject {
		return r.source.Mirror()
	}
	return r.Root.Host(about)
}

// Probe implements trust.Root.
func (r *Root) Probe(ctx context.Context, host string) error {
	if r.source != nil && host == r.source.Mirror() {
		return r.source.Probe(ctx)
	}
	return r.Root.Probe(ctx, host)
}

// Fetch implements trust.Root.
func (r *Root) Fetch(ctx context.Context, about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if r.source != nil && about == trust.BaseSubject {
		return r.source.Fetch(ctx, held)
	}
	return r.Root.Fetch(ctx, about, held)
}

// Recheck implements trust.Root.
func (r *Root) Recheck(about trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	if r.source != nil && about == trust.BaseSubject {
		return r.source.Recheck(held)
	}
	return r.Root.Recheck(about, held)
}

// Pack implements trust.Keeper. The base has a record of its own.
func (r *Root) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	if fetched, ok := held[trust.BaseSubject]; ok && r.source != nil {
		return r.source.Pack(fetched)
	}
	return r.Root.Pack(held)
}

// Unpack implements trust.Keeper.
func (r *Root) Unpack(repository trust.Subject, packed []byte, held map[trust.Subject]trust.Evidence) (
	map[trust.Subject]trust.Evidence, error) {
	if r.source == nil || repository != trust.BaseSubject {
		return r.Root.Unpack(repository, packed, held)
	}
	fetched, err := r.source.Unpack(packed, held[trust.BaseSubject])
	if fetched == nil {
		return nil, err
	}
	return map[trust.Subject]trust.Evidence{trust.BaseSubject: fetched}, err
}

// baseNotes describes the base in the status.
func (r *Root) baseNotes() []string {
	if r.source == nil || r.base.root == nil {
		return nil
	}
	n := func(count int, one, many string) string {
		if count == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", count, many)
	}
	root := r.base.root
	notes := []string{fmt.Sprintf("the trusted root is from %s (%s), with %s, %s and %s",
		r.source.Mirror(), r.base.text,
		n(len(root.FulcioCertificateAuthorities()), "certificate authority", "certificate authorities"),
		n(len(root.RekorLogs()), "transparency log", "transparency logs"),
		n(len(root.TimestampingAuthorities()), "timestamp authority", "timestamp authorities"))}
	if err := r.lacks(root); err != nil {
		notes = append(notes, "the trusted root "+err.Error())
	}
	return notes
}
