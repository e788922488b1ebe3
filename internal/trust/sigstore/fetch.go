package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

const (
	maxSignatures = bydigest.MaxSignatures
	maxSignature  = bydigest.MaxSignature
	// maxOthers bounds the attestations of other types that are kept for the text of a denial.
	maxOthers = 8
	// parallel bounds the requests for the signatures of a layout at one time.
	parallel = 8

	// simpleSigning is the media type of a signature of the tag layout.
	simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	// bundlePrefix begins the media types of bundles, in both of their spellings.
	bundlePrefix = "application/vnd.dev.sigstore.bundle"
	// emptyConfig is the type of the config of a bundle's manifest. Some registries list a bundle
	// under it.
	emptyConfig = "application/vnd.oci.empty.v1+json"

	annotationSignature = "dev.cosignproject.cosign/signature"
	annotationPredicate = "dev.sigstore.bundle.predicateType"

	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationChain       = "dev.sigstore.cosign/chain"
	annotationLog         = "dev.sigstore.cosign/bundle"
	annotationTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"
)

// registries reads image registries: *registry.Images.
type registries interface {
	Tagged(ctx context.Context, repository, tag string) (registry.Manifest, error)
	Manifest(ctx context.Context, repository, digest string, limit int64) (registry.Manifest, error)
	Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor, error)
	Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error)
}

// found is what the registry has about one digest, and what could not be fetched of it.
type found struct {
	collection
	attested      attestedPart
	faults        []*trust.Fault
	unread        bool // neither layout could be fetched
	fetchManifest func() ([]byte, error)
}

// fetcher fetches the signatures of one digest.
type fetcher struct {
	*verifier
	repository string // that has the signatures
	about      trust.Subject
	before     *collection
	attested   *attestations // that were fetched before; nil: none were looked for
}

// collect fetches both layouts side by side, and the attestations if a role needs any. The caller
// must call release of the attestations.
func (v *verifier) collect(ctx context.Context, about trust.Subject, before *collection,
	attested *attestations) *found {
	f := &fetcher{verifier: v, repository: v.repository, about: about, before: before, attested: attested}
	if f.repository == "" {
		f.repository = about.Pulled
	}
	var tagged, bundles part
	var tag string
	var all errgroup.Group
	all.Go(func() error {
		tagged, tag = f.tagged(ctx)
		return nil
	})
	offered, attestedPart := newOffer(), newAttestedPart()
	all.Go(func() error {
		defer offered.end()
		bundles = f.bundles(ctx, offered)
		return nil
	})
	if len(v.roles.types) > 0 {
		all.Go(func() error {
			attestedPart = f.fetchAttestations(ctx, offered)
			return nil
		})
	}
	_ = all.Wait() // no function returns an error
	return f.join(ctx, tagged, tag, bundles, attestedPart)
}

// join puts together what was fetched.
func (f *fetcher) join(ctx context.Context, tagged part, tag string, bundles part, attested attestedPart) *found {
	all := &found{fetchManifest: sync.OnceValues(func() ([]byte, error) {
		m, err := f.registry.Manifest(ctx, f.about.Pulled, f.about.Digest, registry.MaxManifest)
		return m.Body, bydigest.Missing(f.about.String(), err)
	})}
	if len(f.before.Manifest) > 0 {
		all.Manifest = f.before.Manifest
	}
	all.Tag, all.Judges = tag, f.before.Judges
	inBundles := f.merge(layoutBundle, bundles)
	slices.SortFunc(inBundles, func(a, b kept) int { return strings.Compare(a.ID, b.ID) }) // in any order of the list
	all.Signatures = slices.Concat(f.merge(layoutTag, tagged), inBundles)
	all.faults = slices.Concat(tagged.faults, bundles.faults, attested.faults)
	all.unread = tagged.unread && bundles.unread
	all.attested = attested
	if len(f.roles.types) == 0 {
		return all
	}
	attested.failed[layoutBundle] = attested.failed[layoutBundle] || bundles.anyFailed
	attested.beyond[layoutBundle] = attested.beyond[layoutBundle] || bundles.anyBeyond
	attested.All = append(attested.All, bundles.attested...)
	attested.merge(f.attested, f.roles.types)
	all.attested = attested
	return all
}

// part is what was fetched of one layout.
type part struct {
	signatures []kept
	faults     []*trust.Fault
	unread     bool // nothing of it could be fetched

	// attested are attestations that looked like signatures in the list. anyFailed and anyBeyond
	// say that others of these may be missing here.
	attested             []attested
	anyFailed, anyBeyond bool
}

// failAll is fail where nothing of the layout could be fetched.
func (p *part) failAll(where string, err error) {
	p.fail(where, err)
	p.unread = true
}

func (p *part) fail(where string, err error) {
	p.faults = append(p.faults, trust.AsFault(bydigest.Missing(where, err), v1alpha1.ReasonUnexpectedAnswer))
}

// merge returns the signatures of a layout. If there was a fault, those that were fetched before
// stand in.
func (f *fetcher) merge(l layout, p part) []kept {
	if len(p.faults) == 0 {
		return p.signatures
	}
	all := p.signatures
	for i := range f.before.Signatures {
		s := &f.before.Signatures[i]
		if s.Layout == l && !slices.ContainsFunc(all, func(other kept) bool { return other.same(s) }) &&
			len(all) < 2*maxSignatures {
			all = append(all, *s)
		}
	}
	return all
}

// tagged fetches the signatures of the tag layout, and the digest of their manifest.
func (f *fetcher) tagged(ctx context.Context) (p part, tag string) {
	name := strings.Replace(f.about.Digest, ":", "-", 1) + ".sig"
	where := f.repository + ":" + name
	m, err := f.registry.Tagged(ctx, f.repository, name)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		return p, ""
	case err != nil:
		p.failAll(where, err)
		return p, ""
	case m.Digest == f.before.Tag:
		for i := range f.before.Signatures {
			if s := &f.before.Signatures[i]; s.Layout == layoutTag {
				p.signatures = append(p.signatures, *s)
			}
		}
		return p, m.Digest
	}
	manifest, why, err := bydigest.Decode(ctx, f.budget, m)
	switch {
	case err != nil:
		p.fail(where, err)
		return p, ""
	case why != "":
		p.signatures = []kept{{Layout: layoutTag, ID: m.Digest, Why: why}}
		return p, m.Digest
	}
	if n := len(manifest.Layers); n > maxSignatures {
		manifest.Layers = manifest.Layers[:maxSignatures]
		p.faults = append(p.faults, bydigest.TooMany(where, n))
	}
	p.signatures = make([]kept, len(manifest.Layers))
	wanted := make([]blob, len(manifest.Layers))
	for i, layer := range manifest.Layers {
		s := &p.signatures[i]
		*s = kept{Layout: layoutTag, ID: layer.Digest, Signature: layer.Annotations[annotationSignature]}
		if layer.MediaType != simpleSigning {
			s.Signature, s.Why = "", "has the media type "+shown(layer.MediaType)+", which is no signature"
			continue
		}
		if s.extras = extrasOf(layer.Annotations); s.bytes()+len(s.Signature) > maxSignature {
			s.Signature, s.extras, s.Why = "", extras{}, bydigest.TooLong("set of annotations")
			continue
		}
		wanted[i] = blob{layer: layer, into: &s.Payload, why: &s.Why}
	}
	f.fetchAll(ctx, where, wanted, &p)
	if len(p.faults) > 0 {
		return p, ""
	}
	return p, m.Digest
}

// blob is one blob to fetch. Nothing is fetched where into is nil.
type blob struct {
	layer registry.Descriptor
	into  *[]byte
	why   *string // set if the blob cannot be a signature

	untyped bool // it may be an attestation
}

// fetchAll fetches blobs. A signature whose blob could not be fetched is dropped, with a fault.
func (f *fetcher) fetchAll(ctx context.Context, where string, wanted []blob, p *part) {
	faults := make([]error, len(wanted))
	for i := range wanted {
		w := &wanted[i]
		if w.into == nil {
			continue
		}
		switch size := w.layer.Size; {
		case size <= 0 || !imageref.ValidDigest(w.layer.Digest):
			*w.why, w.into = "has a layer without a usable size or digest", nil
		case size > maxSignature:
			*w.why, w.into = bydigest.TooLong("layer"), nil
		}
	}
	f.each(len(wanted), func(i int) {
		if w := &wanted[i]; w.into != nil {
			*w.into, faults[i] = f.registry.Blob(ctx, f.repository, w.layer.Digest, w.layer.Size)
		}
	})
	for i, err := range faults {
		if err != nil {
			p.fail(where, err)
			p.anyFailed = p.anyFailed || wanted[i].untyped
			p.signatures[i].ID = ""
		}
	}
	p.signatures = slices.DeleteFunc(p.signatures, func(s kept) bool { return s.ID == "" })
}

// each calls a function for each index, several at one time.
func (*fetcher) each(n int, call func(i int)) {
	var all errgroup.Group
	all.SetLimit(parallel)
	for i := range n {
		all.Go(func() error {
			call(i)
			return nil
		})
	}
	_ = all.Wait() // no function returns an error
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}
