package sigstore

import (
	"context"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// bundles fetches the bundles that refer to the digest.
func (f *fetcher) bundles(ctx context.Context, offered *offer) (p part) {
	where := f.repository + "@" + f.about.Digest
	list, err := f.registry.Referrers(ctx, f.repository, f.about.Digest, "")
	if err != nil {
		p.failAll("the referrers of "+where, err)
		p.anyFailed = true
		return p
	}
	var candidates []listedBundle
	var attested []registry.Descriptor
	for _, d := range list {
		switch predicate := d.Annotations[annotationPredicate]; {
		case d.ArtifactType != "" && d.ArtifactType != emptyConfig && !isBundle(d.ArtifactType):
		case slices.Contains(f.roles.types, predicate):
			d.Annotations = nil
			attested = append(attested, d)
		case predicate != "" && predicate != signPredicate: // it proves nothing, so that nobody need have signed this
			if len(p.signatures) < maxOthers {
				p.signatures = append(p.signatures, kept{
					Layout: layoutBundle, ID: d.Digest,
					Why: "is an attestation (" + shown(predicate) + "), which is no signature",
				})
			}
		default:
			d.Annotations = nil // the list has megabytes of them
			candidates = append(candidates, listedBundle{Descriptor: d, typed: predicate != ""})
		}
	}
	offered.list(attested)
	if n := len(candidates); n > maxSignatures {
		p.anyBeyond = slices.ContainsFunc(candidates[maxSignatures:], untyped)
		candidates = candidates[:maxSignatures]
		p.faults = append(p.faults, bydigest.TooMany(where, n))
	}
	read := part{signatures: make([]kept, len(candidates))}
	wanted, large := f.manifests(ctx, candidates, &read)
	offered.large(large)
	f.fetchAll(ctx, where, wanted, &read)
	f.separate(&read)
	p.signatures = append(p.signatures, read.signatures...)
	p.faults = append(p.faults, read.faults...)
	p.attested, p.anyFailed = read.attested, read.anyFailed
	return p
}

// listedBundle is a bundle of the list of referrers.
type listedBundle struct {
	registry.Descriptor
	typed bool // the list says that it is a signature
}

func untyped(b listedBundle) bool { return !b.typed }

// manifests fetches the manifests of bundles, and returns the blobs that have the bundles, and the
// bundles that may be attestations only. What was fetched before, it takes from there.
func (f *fetcher) manifests(ctx context.Context, of []listedBundle, p *part) (wanted []blob, large []candidate) {
	wanted = make([]blob, len(of))
	candidates, faults := make([]*candidate, len(of)), make([]error, len(of))
	f.each(len(of), func(i int) {
		s, c := &p.signatures[i], &candidate{attested: attested{Layout: layoutBundle, ID: of[i].Digest}}
		if n := slices.IndexFunc(f.before.Signatures, func(other kept) bool {
			return other.Layout == layoutBundle && other.ID == of[i].Digest
		}); n >= 0 {
			*s = f.before.Signatures[n]
			return
		}
		if f.attested.find(&c.attested) != nil {
			candidates[i] = c
			return
		}
		layer, why, err := f.bundleLayer(ctx, of[i].Descriptor)
		switch {
		case err != nil:
			faults[i] = err
		case len(f.roles.types) > 0 && !of[i].typed && layer.Size > maxSignature:
			c.layer = layer
			candidates[i] = c
		case why != "":
			*s = kept{Layout: layoutBundle, ID: of[i].Digest, Why: why}
		case layer.MediaType != "":
			*s = kept{Layout: layoutBundle, ID: of[i].Digest}
			wanted[i] = blob{layer: layer, into: &s.Bundle, why: &s.Why, untyped: !of[i].typed}
		}
	})
	for i, err := range faults {
		if err != nil {
			p.fail(f.repository+"@"+of[i].Digest, err)
			p.anyFailed = p.anyFailed || !of[i].typed
		}
	}
	for _, c := range candidates {
		if c != nil {
			large = append(large, *c)
		}
	}
	return wanted, large
}

// bundleLayer fetches the manifest of a bundle, and returns the layer with the bundle. why says
// that it has none, in the rest of a sentence that begins with the bundle. Both are empty for a
// manifest that need not have any.
func (f *fetcher) bundleLayer(ctx context.Context, of registry.Descriptor) (layer registry.Descriptor, why string,
	err error) {
	m, err := f.registry.Manifest(ctx, f.repository, of.Digest, maxSignature)
	switch {
	case err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonTooLarge:
		return layer, bydigest.TooLong("manifest"), nil
	case err != nil:
		return layer, "", err
	}
	manifest, why, err := bydigest.Decode(ctx, f.budget, m)
	if err != nil || why != "" {
		return layer, why, err
	}
	for _, l := range manifest.Layers {
		if isBundle(l.MediaType) {
			return l, "", nil
		}
	}
	if isBundle(of.ArtifactType) {
		why = "has no layer with a bundle"
	}
	return layer, why, nil
}

// isBundle reports whether a media type is that of a bundle, in any version and spelling.
func isBundle(mediaType string) bool {
	rest, ok := strings.CutPrefix(mediaType, bundlePrefix)
	return ok && (strings.HasPrefix(rest, ".v") || strings.HasPrefix(rest, "+json"))
}
