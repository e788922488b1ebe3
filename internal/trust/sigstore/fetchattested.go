package sigstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

// attestedPart is what was fetched of the attestations on a digest.
type attestedPart struct {
	attestations
	faults []*trust.Fault
	// beyond and failed are the layouts of which not all was read: because of a bound, or because
	// the registry failed.
	beyond, failed map[layout]bool
	release        func() // of the memory of what was fetched
}

func newAttestedPart() attestedPart {
	return attestedPart{beyond: map[layout]bool{}, failed: map[layout]bool{}, release: func() {}}
}

func (p *attestedPart) fail(l layout, where string, err error) {
	p.failed[l] = true
	p.faults = append(p.faults, trust.AsFault(bydigest.Missing(where, err), v1alpha1.ReasonUnexpectedAnswer))
}

func (p *attestedPart) exceed(l layout, format string, args ...any) {
	p.beyond[l] = true
	p.faults = append(p.faults, trust.NewFault(v1alpha1.ReasonTooLarge, format, args...))
}

// manyAttested is the text of a fault.
const manyAttested = "%s: %d attestations, of which only the first %d are read; remove those that are not needed"

// candidate is an attestation whose content is to be fetched.
type candidate struct {
	attested
	layer registry.Descriptor
}

// offer passes on which bundles may be attestations, as soon as that is known: those that the list
// of referrers says to be, and those without a type there that are too large for a signature.
type offer struct {
	listed   chan []registry.Descriptor
	tooLarge chan []candidate
}

func newOffer() *offer {
	return &offer{listed: make(chan []registry.Descriptor, 1), tooLarge: make(chan []candidate, 1)}
}

func (o *offer) list(of []registry.Descriptor) { o.listed <- of }

func (o *offer) large(of []candidate) { o.tooLarge <- of }

// end says that no more will come.
func (o *offer) end() {
	close(o.listed)
	close(o.tooLarge)
}

// fetchAttestations fetches the attestations of both layouts: those under the tag of attestations,
// and the bundles that are offered. It costs no round trip beside those of signatures.
func (f *fetcher) fetchAttestations(ctx context.Context, offered *offer) attestedPart {
	p := newAttestedPart()
	wanted := f.underTag(ctx, &p)
	wanted = append(wanted, f.asBundles(ctx, <-offered.listed, &p)...)
	for _, c := range <-offered.tooLarge {
		wanted = f.want(wanted, c, &p)
	}
	f.fetchContents(ctx, wanted, &p)
	return p
}

// separate takes the attestations out of what was fetched as signatures.
func (f *fetcher) separate(p *part) {
	if len(f.roles.types) == 0 {
		return
	}
	p.signatures = slices.DeleteFunc(p.signatures, func(s kept) bool {
		if s.Bundle == nil || !attests(s.Bundle, f.roles.types) {
			return false
		}
		content, err := f.packer.Compress(s.Bundle)
		if err != nil {
			p.fail(f.repository+"@"+s.ID, err)
			p.anyFailed = true
			return true
		}
		p.attested = append(p.attested, attested{Layout: layoutBundle, ID: s.ID, Content: content,
			Size: int64(len(s.Bundle))})
		return true
	})
}

// want adds a candidate, or what was fetched of it before.
func (f *fetcher) want(wanted []candidate, c candidate, p *attestedPart) []candidate {
	if have := f.attested.find(&c.attested); have != nil {
		p.All = append(p.All, *have)
		return wanted
	}
	if c.layer.Size <= 0 || !imageref.ValidDigest(c.layer.Digest) {
		c.Why = "has a layer without a usable size or digest"
		p.All = append(p.All, c.attested)
		return wanted
	}
	return append(wanted, c)
}

// underTag reads the manifest under the tag of attestations.
func (f *fetcher) underTag(ctx context.Context, p *attestedPart) (wanted []candidate) {
	name := strings.Replace(f.about.Digest, ":", "-", 1) + ".att"
	where := f.repository + ":" + name
	m, err := f.registry.Tagged(ctx, f.repository, name)
	switch {
	case errors.Is(err, trust.ErrNotFound):
		return nil
	case err != nil:
		p.fail(layoutTag, where, err)
		return nil
	}
	p.Tag = m.Digest
	if m.Digest == f.attested.Tag && f.attested.covers(f.roles.types) {
		for i := range f.attested.All {
			if a := &f.attested.All[i]; a.Layout == layoutTag {
				p.All = append(p.All, *a)
			}
		}
		return nil
	}
	manifest, why, err := bydigest.Decode(ctx, f.budget, m)
	switch {
	case err != nil:
		p.fail(layoutTag, where, err)
		return nil
	case why != "":
		p.All = append(p.All, attested{Layout: layoutTag, ID: m.Digest, Why: why})
		return nil
	}
	layers := slices.DeleteFunc(manifest.Layers, func(l registry.Descriptor) bool {
		t := l.Annotations[annotationType]
		return l.MediaType != dsseEnvelope || t != "" && !slices.Contains(f.roles.types, t)
	})
	if n := len(layers); n > maxAttested {
		layers = layers[:maxAttested]
		p.exceed(layoutTag, manyAttested, where, n, maxAttested)
	}
	for _, layer := range layers {
		c := candidate{layer: layer, attested: attested{Layout: layoutTag, ID: layer.Digest,
			extras: extrasOf(layer.Annotations)}}
		if c.bytes() > maxSignature {
			c.extras, c.Why = extras{}, bydigest.TooLong("set of annotations")
			p.All = append(p.All, c.attested)
			continue
		}
		wanted = f.want(wanted, c, p)
	}
	return wanted
}

// asBundles fetches the manifests of bundles with attestations.
func (f *fetcher) asBundles(ctx context.Context, of []registry.Descriptor, p *attestedPart) (wanted []candidate) {
	where := f.repository + "@" + f.about.Digest
	if n := len(of); n > maxAttested {
		of = of[:maxAttested]
		p.exceed(layoutBundle, manyAttested, where, n, maxAttested)
	}
	found, faults := make([]candidate, len(of)), make([]error, len(of))
	f.each(len(of), func(i int) {
		c := &found[i]
		c.attested = attested{Layout: layoutBundle, ID: of[i].Digest}
		if f.attested.find(&c.attested) == nil {
			c.layer, c.Why, faults[i] = f.bundleLayer(ctx, of[i])
		}
	})
	for i, c := range found {
		switch {
		case faults[i] != nil:
			p.fail(layoutBundle, f.repository+"@"+of[i].Digest, faults[i])
		case c.Why != "":
			p.All = append(p.All, c.attested)
		default:
			wanted = f.want(wanted, c, p)
		}
	}
	return wanted
}

// fetchContents fetches the contents of attestations, the smallest first, within the bound of all
// together. So a large one keeps out no smaller one.
func (f *fetcher) fetchContents(ctx context.Context, wanted []candidate, p *attestedPart) {
	left := int64(maxAttestedBytes)
	for i := range p.All {
		left -= p.All[i].Size
	}
	slices.SortStableFunc(wanted, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.layer.Size, b.layer.Size), strings.Compare(a.ID, b.ID))
	})
	for i := range wanted {
		if left -= wanted[i].layer.Size; left < 0 {
			for _, c := range wanted[i:] {
				p.beyond[c.Layout] = true
			}
			p.faults = append(p.faults, trust.NewFault(v1alpha1.ReasonTooLarge, "%s@%s: the attestations have more "+
				"than %d MiB together, of which only the smallest are read; remove those that are not needed",
				f.repository, f.about.Digest, maxAttestedBytes>>20))
			wanted = wanted[:i]
			break
		}
	}
	if len(wanted) == 0 {
		return
	}
	// The contents that were fetched before are verified again too.
	total := maxAttestedBytes - max(left, 0)
	if err := f.transfers.Acquire(ctx, total); err != nil {
		for _, c := range wanted {
			p.failed[c.Layout] = true
		}
		p.faults = append(p.faults, trust.NewFault(v1alpha1.ReasonTimeout, "%s@%s: waiting for the attestations of "+
			"other images: %w", f.repository, f.about.Digest, err))
		return
	}
	p.release = func() { f.transfers.Release(total) }
	faults := make([]error, len(wanted))
	f.each(len(wanted), func(i int) {
		c := &wanted[i]
		var data []byte
		if data, faults[i] = f.registry.Blob(ctx, f.repository, c.layer.Digest, c.layer.Size); faults[i] == nil {
			c.Size = int64(len(data))
			c.Content, faults[i] = f.packer.Compress(data)
		}
	})
	for i, err := range faults {
		if err != nil {
			p.fail(wanted[i].Layout, f.repository+"@"+wanted[i].layer.Digest, err)
			continue
		}
		p.All = append(p.All, wanted[i].attested)
	}
}

// merge completes the list with what was fetched before. A layout of which something could not be
// read counts as it was then, if it was known in full: an outage withdraws nothing. Beyond a bound
// it is not known in full, whatever was known before. Anyone who may push could otherwise hide a
// new attestation behind others.
func (p *attestedPart) merge(before *attestations, types []string) {
	p.Types = types
	stand := slices.ContainsFunc(p.All, func(a attested) bool { return a.Dropped })
	known := func(l layout) bool { return before.covers(types) && !slices.Contains(before.Unread, l) }
	for _, l := range []layout{layoutTag, layoutBundle} {
		if !p.beyond[l] && !p.failed[l] {
			continue
		}
		stand = true
		if p.beyond[l] || !known(l) {
			p.Unread = append(p.Unread, l)
		}
		if l == layoutTag {
			p.Tag = ""
		}
		for i := range before.All {
			a := &before.All[i]
			if a.Layout == l && p.find(a) == nil && len(p.All) < 4*maxAttested {
				p.All = append(p.All, *a)
			}
		}
	}
	if stand {
		p.Judges = before.Judges
	}
	slices.SortFunc(p.All, func(a, b attested) int {
		return cmp.Or(strings.Compare(string(a.Layout), string(b.Layout)), strings.Compare(a.ID, b.ID),
			strings.Compare(string(a.Certificate), string(b.Certificate)))
	})
}
