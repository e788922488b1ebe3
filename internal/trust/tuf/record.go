package tuf

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// recordFormat identifies the output of Pack and its version.
	recordFormat = "countersign tuf 1"
	// maxHeader bounds the header of a record in bytes, and maxHeaderValues its JSON values: the
	// names of all images that are in use.
	maxHeader       = 8 << 20
	maxHeaderValues = 1 << 17
)

// header is the first line of a record. The packed metadata follows it.
type header struct {
	Format string `json:"format"`
	// Images are the subjects. They are not signed: a subject that is not listed is fetched.
	Images []recorded `json:"images"`
	// Lapsed are delegated files that had expired when they were fetched.
	Lapsed []string `json:"lapsed,omitempty"`
}

// recorded is one subject: a tag, or an image repository.
type recorded struct {
	Repository string `json:"repository"`
	Tag        string `json:"tag,omitempty"`
}

// Pack implements trust.Keeper. It records the newest metadata once, with the names of all subjects
// that have signatures.
func (r *Root) Pack(held map[trust.Subject]trust.Evidence) ([]byte, error) {
	h := header{Format: recordFormat}
	var newest *metadata
	for about, one := range held {
		e, ok := one.(*evidence)
		if !ok {
			if _, unsigned := one.(trust.Unsigned); unsigned {
				continue
			}
			return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the evidence is not of this format, so it "+
				"is not recorded", about)
		}
		if current := e.repository.known(); !e.metadata.newer(current) {
			e = &evidence{metadata: current, lapsed: e.lapsed, known: e.known}
		}
		if e.metadata.newer(newest) {
			newest = e.metadata
		}
		if !e.known {
			continue
		}
		h.Images = append(h.Images, recorded{Repository: about.Repository, Tag: about.Tag})
		h.Lapsed = append(h.Lapsed, e.lapsed...)
	}
	if newest == nil || len(h.Images) == 0 {
		return nil, nil
	}
	slices.SortFunc(h.Images, func(a, b recorded) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), strings.Compare(a.Tag, b.Tag))
	})
	slices.Sort(h.Lapsed)
	h.Lapsed = slices.Compact(h.Lapsed)
	line, err := json.Marshal(h)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "encoding the record: %w", err)
	}
	return slices.Concat(line, []byte("\n"), newest.packed()), nil
}

// Unpack implements trust.Keeper.
func (r *Root) Unpack(of trust.Subject, packed []byte, held map[trust.Subject]trust.Evidence) (
	map[trust.Subject]trust.Evidence, error) {
	h, data, err := readHeader(packed)
	if err != nil {
		return nil, err
	}
	if of.Shared == r.location.perRepository {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the record is of another layout of "+
			"spec.tuf.server", of)
	}
	p, err := r.repositoryOf(of)
	if err != nil {
		return nil, err
	}
	for about, one := range held { // a record must not undercut what is held
		_, _ = r.before(p, about, one)
	}
	m, err := p.restore(data)
	if m == nil {
		return nil, err
	}
	found := map[trust.Subject]trust.Evidence{}
	for _, image := range h.Images {
		about := trust.Subject{Repository: image.Repository, Tag: image.Tag, Shared: of.Shared}
		if about.InRepository() != of || about.Repository == "" ||
			image.Tag != "" && !tagPattern.MatchString(image.Tag) {
			continue
		}
		lapsed := h.Lapsed
		if before, ok := held[about].(*evidence); ok && before != nil {
			if err == nil && before.root == r && !m.newer(before.metadata) {
				continue
			}
			lapsed = slices.Concat(lapsed, before.lapsed)
		}
		found[about] = r.evidenceOf(p, m, about, r.again(lapsed, true)).charged()
	}
	return found, err
}

// readHeader splits a record.
func readHeader(packed []byte) (h header, data []byte, err error) {
	fault := func(format string, args ...any) error {
		return trust.NewFault(v1alpha1.ReasonMetadataInvalid, "the record cannot be used: "+format, args...)
	}
	end := bytes.IndexByte(packed[:min(len(packed), maxHeader)], '\n')
	if end < 0 {
		return h, nil, fault("no header of at most %d bytes", maxHeader)
	}
	if values, ok := jsonscan.Count(packed[:end], maxHeaderValues); !ok || values == maxHeaderValues {
		return h, nil, fault("the header is not JSON with fewer than %d values", maxHeaderValues)
	}
	if err := json.Unmarshal(packed[:end], &h); err != nil {
		return h, nil, fault("header: %w", err)
	}
	if h.Format != recordFormat {
		return h, nil, fault("format %.80q is not %q; another version or another program wrote it", h.Format,
			recordFormat)
	}
	return h, packed[end+1:], nil
}

// restore verifies packed metadata, and makes it the current one unless that is as new. With an
// error it may return metadata too, which proves nothing: it remembers the versions seen.
func (p *repository) restore(packed []byte) (*metadata, error) {
	current := p.known()
	m, err := p.unpack(packed, current)
	if m != nil {
		p.know(m)
		if err == nil {
			m = p.known() // a round may have ended meanwhile
		}
	}
	return m, err
}

func (p *repository) unpack(packed []byte, current *metadata) (*metadata, error) {
	if current == nil {
		s, err := p.client.Unpack(context.Background(), packed, nil)
		if s == nil {
			return nil, err
		}
		return newMetadata(s), err
	}
	s, err := p.client.Unpack(context.Background(), packed, current.state)
	switch s {
	case nil:
		return nil, err
	case current.state:
		return current, err
	}
	return newMetadata(s), err
}
