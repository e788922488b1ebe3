package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxReferrers bounds the referrers of one digest that are listed. A registry with more has to
	// filter them by their type.
	maxReferrers = 1024
	// maxReferrerPages bounds the pages of a list, and maxReferrerBytes what all of them have.
	maxReferrerPages = 32
	maxReferrerBytes = 4 << 20
	// maxIndexValues bounds the JSON values of one page, those that nobody reads included.
	maxIndexValues = 64 << 10
	// decodedCost bounds the memory that decoding takes up, by byte of JSON.
	decodedCost = 8
)

// Descriptor names a manifest or blob (OCI image specification, "OCI Content Descriptors").
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
}

// Referrers lists the manifests that refer to a digest, in the registry's order: by the referrers
// API, page by page, or where the registry does not serve that, by the tag schema (OCI distribution
// specification, "Listing Referrers"). An artifactType that is not empty filters them; a registry
// may leave the type of a descriptor empty, so those are listed too. Without referrers the list is
// empty. More than 1,024 of them, or 4 MiB, are a fault. The error is a *trust.Fault.
//
// While a caller waits, and the registry has not served the API the last time, both lists are
// requested at once: that saves a round trip. Otherwise the tag is requested only after the
// registry has said that it has no API. Which list counts does not depend on that: where the API is
// served, its list counts alone.
func (i *Images) Referrers(ctx context.Context, repository, digest, artifactType string) ([]Descriptor, error) {
	return read(ctx, i, repository, func(at imageRepository) ([]Descriptor, error) {
		return i.referrers(ctx, at, digest, artifactType)
	})
}

func (i *Images) referrers(ctx context.Context, at imageRepository, digest, artifactType string) ([]Descriptor,
	error) {
	target, err := at.target("referrers/" + digest)
	if err != nil {
		return nil, err
	}
	if artifactType != "" {
		target.RawQuery = url.Values{"artifactType": {artifactType}}.Encode()
	}
	tag := strings.Replace(digest, ":", "-", 1)
	get := func(ctx context.Context) (Manifest, error) { return at.get(ctx, tag, MaxManifest) }
	tagged := func() (Manifest, error) { return get(ctx) }
	if !at.client.listsReferrers.Load() && !trust.PurposeOf(ctx).Background {
		var abandon func()
		tagged, abandon = early(ctx, get)
		defer abandon()
	}
	list, served, err := i.pages(ctx, at, target)
	if err == nil {
		at.client.listsReferrers.Store(served)
	}
	if err == nil && !served {
		list, err = i.tagged(ctx, at, tag, tagged)
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(d Descriptor) bool {
		return artifactType != "" && d.ArtifactType != "" && d.ArtifactType != artifactType
	}), nil
}

// errUnneeded is the cause of the end of a request whose answer does not matter any more.
var errUnneeded = errors.New("another answer made this request unnecessary")

// early starts a fetch, and returns a function that waits for its result. The caller must call
// abandon, which ends a fetch that is in flight, and waits for its end.
func early[T any](ctx context.Context, fetch func(context.Context) (T, error)) (wait func() (T, error),
	abandon func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var result T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = fetch(ctx)
	}()
	wait = func() (T, error) {
		<-done
		return result, err
	}
	return wait, func() {
		cancel(errUnneeded)
		<-done
	}
}

// pages reads the list of the referrers API. served is false where the registry has none.
func (i *Images) pages(ctx context.Context, at imageRepository, target *url.URL) (list []Descriptor, served bool,
	err error) {
	first, left := target, int64(maxReferrerBytes)
	for page := 1; target != nil; page++ {
		if page > maxReferrerPages {
			return nil, true, trust.NewFault(v1alpha1.ReasonTooLarge, "%s: the list has more than %d pages",
				shownURL(first),
				maxReferrerPages)
		}
		resp, body, err := at.client.send(ctx, at.path, request{target: target, accept: indexMediaType, limit: left})
		if err != nil {
			return nil, true, err
		}
		if page == 1 && notServed(resp.StatusCode) {
			return nil, false, nil
		}
		if err := at.client.checkResponse(resp, body); err != nil {
			return nil, true, trust.AsFault(err, v1alpha1.ReasonUnexpectedAnswer)
		}
		left -= int64(len(body))
		more, err := i.index(ctx, shownURL(target), body)
		if err != nil {
			return nil, true, err
		}
		if list = append(list, more...); len(list) > maxReferrers {
			return nil, true, tooMany(target)
		}
		if target, err = next(at, resp); err != nil {
			return nil, true, err
		}
	}
	return list, true, nil
}

// notServed reports whether a status means that the registry has no such endpoint.
func notServed(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}

func tooMany(target *url.URL) error {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: more than %d manifests refer to the digest", shownURL(target),
		maxReferrers)
}

// tagged reads the list of the tag schema. A tag that does not exist is an empty list.
func (i *Images) tagged(ctx context.Context, at imageRepository, tag string,
	get func() (Manifest, error)) ([]Descriptor, error) {
	m, err := get()
	if errors.Is(err, trust.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := i.index(ctx, at.shownURL("manifests/"+tag), m.Body)
	if err == nil && len(list) > maxReferrers {
		target, _ := at.target("manifests/" + tag)
		return nil, tooMany(target)
	}
	return list, err
}

// index decodes an image index within the budget. where is what messages show of its URL. A
// descriptor without a valid digest is left out: nothing can be fetched by it.
func (i *Images) index(ctx context.Context, where string, body []byte) ([]Descriptor, error) {
	if values, ok := jsonscan.Count(body, maxIndexValues); !ok || values == maxIndexValues {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the list of referrers is no JSON, or has more "+
				"than %d values", where, maxIndexValues)
	}
	release, err := i.cfg.Budget.Acquire(ctx, decodedCost*int64(len(body)))
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonTimeout, "%s: %w", where, err)
	}
	defer release()
	var index struct {
		SchemaVersion int          `json:"schemaVersion"`
		Manifests     []Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the list of referrers is no image index: %w",
			where, err)
	}
	if index.SchemaVersion != 2 {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the list of referrers is no image index: its schemaVersion is %d and not 2", where,
			index.SchemaVersion)
	}
	return slices.DeleteFunc(index.Manifests, func(d Descriptor) bool { return !imageref.ValidDigest(d.Digest) }), nil
}

// next returns the URL of the next page that the Link header names (RFC 8288), nil where it names
// none. It must lie below the same repository of the same server: whatever it answers is taken for
// the registry's own list.
func next(at imageRepository, resp *http.Response) (*url.URL, error) {
	link := regexp.MustCompile(`<([^<>]*)>([^<]*)`) // a target, and its parameters up to the next one
	for _, found := range link.FindAllStringSubmatch(strings.Join(resp.Header.Values("Link"), ","), -1) {
		if !isNext(found[2]) {
			continue
		}
		from := resp.Request.URL
		to, err := from.Parse(found[1])
		if err != nil {
			return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the link to the next page is no URL",
				shownURL(from))
		}
		own, err := at.target("referrers")
		if err != nil {
			return nil, err
		}
		if to.Scheme != own.Scheme || hostPort(to) != hostPort(own) || to.User != nil ||
			!strings.HasPrefix(to.Path, own.Path+"/") || path.Clean(to.Path) != to.Path {
			return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
				"%s: the link to the next page leads to %s, which is not in the list of this repository and not fetched",
				shownURL(from), shownURL(to))
		}
		to.Fragment, to.Host = "", plainHost(to)
		return to, nil
	}
	return nil, nil
}

// isNext reports whether the parameters of a link say rel="next".
func isNext(parameters string) bool {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.Trim(parameter, ", "), "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") &&
			slices.ContainsFunc(strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)),
				func(rel string) bool { return strings.EqualFold(rel, "next") }) {
			return true
		}
	}
	return false
}
