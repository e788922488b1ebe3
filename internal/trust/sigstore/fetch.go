package sigstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxSignatures bounds the signatures on a digest that are read in each layout.
	maxSignatures = 64
	// maxSignature bounds one signature, and the manifest of one bundle, in bytes. A bound on all
	// of them together would let a large file keep out the signatures that are listed after it.
	maxSignature = 64 << 10
	// maxAttestations bounds the attestations that are remembered for the text of a denial.
	maxAttestations = 8
	// parallel bounds the requests for the signatures of a layout at one time.
	parallel = 8
	// maxManifestValues bounds the JSON values of a signature's manifest, and manifestCost the
	// memory that decoding takes up, by byte of it.
	maxManifestValues = 16 << 10
	manifestCost      = 8

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
}

// collect fetches both layouts side by side.
func (v *verifier) collect(ctx context.Context, about trust.Subject, before *collection) *found {
	f := &fetcher{verifier: v, repository: v.repository, about: about, before: before}
	if f.repository == "" {
		f.repository = about.Pulled
	}
	var tagged, bundles part
	var tag string
	var both errgroup.Group
	both.Go(func() error {
		tagged, tag = f.tagged(ctx)
		return nil
	})
	both.Go(func() error {
		bundles = f.bundles(ctx)
		return nil
	})
	_ = both.Wait() // no function returns an error
	all := &found{fetchManifest: sync.OnceValues(func() ([]byte, error) {
		m, err := v.registry.Manifest(ctx, about.Pulled, about.Digest, registry.MaxManifest)
		return m.Body, missing(about.String(), err)
	})}
	if len(before.Manifest) > 0 {
		all.Manifest = before.Manifest
	}
	all.Tag = tag
	all.Signatures = slices.Concat(f.merge(layoutTag, tagged), f.merge(layoutBundle, bundles))
	all.faults = slices.Concat(tagged.faults, bundles.faults)
	all.unread = tagged.unread && bundles.unread
	return all
}

// part is what was fetched of one layout.
type part struct {
	signatures []kept
	faults     []*trust.Fault
	unread     bool // nothing of it could be fetched
}

// failAll is fail where nothing of the layout could be fetched.
func (p *part) failAll(where string, err error) {
	p.fail(where, err)
	p.unread = true
}

func (p *part) fail(where string, err error) {
	p.faults = append(p.faults, trust.AsFault(missing(where, err), v1alpha1.ReasonUnexpectedAnswer))
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
	manifest, why, err := f.decode(ctx, m)
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
		p.faults = append(p.faults, tooMany(where, n))
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
			s.Signature, s.extras, s.Why = "", extras{}, tooLong("set of annotations")
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

// bundles fetches the bundles that refer to the digest.
func (f *fetcher) bundles(ctx context.Context) (p part) {
	where := f.repository + "@" + f.about.Digest
	list, err := f.registry.Referrers(ctx, f.repository, f.about.Digest, "")
	if err != nil {
		p.failAll("the referrers of "+where, err)
		return p
	}
	var candidates []registry.Descriptor
	for _, d := range list {
		switch predicate := d.Annotations[annotationPredicate]; {
		case d.ArtifactType != "" && d.ArtifactType != emptyConfig && !isBundle(d.ArtifactType):
		case predicate != "" && predicate != signPredicate: // it proves nothing, so that nobody need have signed this
			if len(p.signatures) < maxAttestations {
				p.signatures = append(p.signatures, kept{
					Layout: layoutBundle, ID: d.Digest,
					Why: "is an attestation (" + shown(predicate) + "), which is no signature",
				})
			}
		default:
			d.Annotations = nil // the list has megabytes of them
			candidates = append(candidates, d)
		}
	}
	if n := len(candidates); n > maxSignatures {
		candidates = candidates[:maxSignatures]
		p.faults = append(p.faults, tooMany(where, n))
	}
	read := part{signatures: make([]kept, len(candidates))}
	f.fetchAll(ctx, where, f.manifests(ctx, candidates, &read), &read)
	p.signatures = append(p.signatures, read.signatures...)
	p.faults = append(p.faults, read.faults...)
	return p
}

// manifests fetches the manifests of bundles, and returns the blobs that have the bundles. What was
// fetched before, it takes from there.
func (f *fetcher) manifests(ctx context.Context, of []registry.Descriptor, p *part) []blob {
	wanted, faults := make([]blob, len(of)), make([]error, len(of))
	f.each(len(of), func(i int) {
		s := &p.signatures[i]
		if n := slices.IndexFunc(f.before.Signatures, func(other kept) bool {
			return other.Layout == layoutBundle && other.ID == of[i].Digest
		}); n >= 0 {
			*s = f.before.Signatures[n]
			return
		}
		m, err := f.registry.Manifest(ctx, f.repository, of[i].Digest, maxSignature)
		switch {
		case err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonTooLarge:
			*s = kept{Layout: layoutBundle, ID: of[i].Digest, Why: tooLong("manifest")}
			return
		case err != nil:
			faults[i] = err
			return
		}
		manifest, why, err := f.decode(ctx, m)
		if err != nil {
			faults[i] = err
			return
		}
		n := slices.IndexFunc(manifest.Layers, func(l descriptor) bool { return isBundle(l.MediaType) })
		switch {
		case why != "":
			*s = kept{Layout: layoutBundle, ID: of[i].Digest, Why: why}
		case n >= 0:
			*s = kept{Layout: layoutBundle, ID: of[i].Digest}
			wanted[i] = blob{layer: manifest.Layers[n], into: &s.Bundle, why: &s.Why}
		case isBundle(of[i].ArtifactType):
			*s = kept{Layout: layoutBundle, ID: of[i].Digest, Why: "has no layer with a bundle"}
		}
	})
	for i, err := range faults {
		if err != nil {
			p.fail(f.repository+"@"+of[i].Digest, err)
		}
	}
	return wanted
}

// blob is one blob to fetch. Nothing is fetched where into is nil.
type blob struct {
	layer descriptor
	into  *[]byte
	why   *string // set if the blob cannot be a signature
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
			*w.why, w.into = tooLong("layer"), nil
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

// descriptor is what is read of a layer.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// manifest is what is read of the manifest of signatures.
type manifest struct {
	Layers []descriptor `json:"layers"`
}

// decode decodes the manifest of signatures. why says that it is none. The error is a *trust.Fault.
func (f *fetcher) decode(ctx context.Context, m registry.Manifest) (read manifest, why string, err error) {
	if n, ok := jsonscan.Count(m.Body, maxManifestValues); !ok || n == maxManifestValues {
		return read, "has a manifest that is not JSON, or is too large", nil
	}
	release, err := f.acquire(ctx, manifestCost*int64(len(m.Body)))
	if err != nil {
		return read, "", err
	}
	defer release()
	if json.Unmarshal(m.Body, &read) != nil || len(read.Layers) == 0 {
		return manifest{}, "has a manifest without layers", nil
	}
	return read, "", nil
}

// isBundle reports whether a media type is that of a bundle, in any version and spelling.
func isBundle(mediaType string) bool {
	rest, ok := strings.CutPrefix(mediaType, bundlePrefix)
	return ok && (strings.HasPrefix(rest, ".v") || strings.HasPrefix(rest, "+json"))
}

// tooLong says that a part of a signature has more bytes than any signature.
func tooLong(what string) string {
	return fmt.Sprintf("has a %s of more than %d KiB, which no signature has", what, maxSignature>>10)
}

func tooMany(where string, n int) *trust.Fault {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: %d signatures, of which only the first %d are read; remove "+
		"those that are not needed", where, n, maxSignatures)
}

// missing makes the absence of something that the registry has named a fault.
func missing(where string, err error) error {
	if errors.Is(err, trust.ErrNotFound) {
		return trust.NewFault(v1alpha1.ReasonMetadataMissing, "%s: a part of the signatures is missing: %w", where, err)
	}
	return err
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}
