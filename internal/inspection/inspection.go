// Package inspection finds out who has signed the images of a repository, under every trust root.
//
// It fetches and verifies as the gate does, through the same store, and decides nothing.
package inspection

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxConcurrent is how many subjects are fetched at the same time.
	maxConcurrent = 16
	// maxRejected bounds the rejected signatures of one image.
	maxRejected = 8
)

// attached matches tags that have what is attached to an image: signatures and attestations of
// cosign, and the list of referrers of the tag schema.
var attached = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\..*)?$`)

// Inspector finds signatures through a store.
type Inspector struct {
	// Store holds the trust roots and what was verified, and Tracker fetches what it lacks.
	Store   *store.Store
	Tracker *store.Tracker
	// Now is the time for expiry.
	Now func() time.Time
	// Namespace is the tenant whose credentials read what those of a trust root may not.
	Namespace string
	// Tags lists the tags of a repository in its registry, if no trust root can.
	Tags func(ctx context.Context, repository string) ([]string, error)
	// MaxTags bounds the tags of a repository that are looked up.
	MaxTags int
}

// Repository is what was found in one repository.
type Repository struct {
	// Name is the repository as it was named.
	Name string `json:"name"`
	// Roots are the trust roots that were used, by name.
	Roots []Root `json:"trustRoots"`
	// Images are the images with their signatures, by tag and digest.
	Images []Image `json:"images"`
	// Notes say what was left out.
	Notes []string `json:"notes,omitempty"`
}

// Root is one trust root.
type Root struct {
	Name   string `json:"name"`
	Format string `json:"format,omitempty"`
	// Faults say what could not be checked under it.
	Faults []string `json:"faults,omitempty"`
}

// Image is one digest, under one tag or under none.
type Image struct {
	Tag    string `json:"tag,omitempty"`
	Digest string `json:"digest,omitempty"`
	// Registry says that the registry has this digest for the tag now.
	Registry   bool        `json:"registry,omitempty"`
	Signatures []Signature `json:"signatures"`
	// Rejected are signatures that exist or were expected, and prove none of the roles.
	Rejected []string `json:"rejected,omitempty"`
}

// Signature says that a role has signed an image.
type Signature struct {
	Role      string `json:"role"`
	TrustRoot string `json:"trustRoot"`
	Format    string `json:"format"`
	// Keys are the keys or identities that were counted.
	Keys []Key `json:"keys"`
	// NotAfter is when the signature expires; nil: never.
	NotAfter *time.Time `json:"notAfter,omitempty"`
}

// Key is a key or an identity.
type Key struct {
	ID string `json:"id"`
	// FirstSeen is when the user of the command has first seen it; nil: that is not remembered.
	FirstSeen *time.Time `json:"firstSeen,omitempty"`
	// New says that it was never seen before in this repository, which is known.
	New bool `json:"new,omitempty"`
}

// inspection is one run of Inspect. Its methods are safe for concurrent use.
type inspection struct {
	*Inspector

	ref   imageref.Ref // of the repository
	roots []string
	roles []string // those that are expected

	mu     sync.Mutex
	faults map[string]map[string]bool // by trust root
	images map[[2]string]*Image       // by tag and digest
}

// Inspect finds the signatures of an image. With whole, it does so for each tag of the repository.
// It uses the named trust roots, and explains for the roles, sorted, why they have not signed. What
// could not be checked is a fault of its trust root in the result.
func (i *Inspector) Inspect(ctx context.Context, ref imageref.Ref, whole bool, roots, roles []string) Repository {
	r := &inspection{
		Inspector: i, ref: ref, roots: roots, roles: roles, faults: map[string]map[string]bool{},
		images: map[[2]string]*Image{},
	}
	found := Repository{Name: ref.Name(), Images: []Image{}}
	tags := []string{ref.Tag}
	if whole {
		tags, found.Notes = r.tags(ctx)
	}
	for _, tag := range tags {
		r.image(tag, ref.Digest)
	}
	if ref.Digest == "" {
		r.resolve(ctx, tags)
	}
	r.verify(ctx)
	for _, name := range roots {
		root := Root{Name: name, Faults: slices.Sorted(maps.Keys(r.faults[name]))}
		if of := i.Store.Load().Root(name); of != nil {
			root.Format = of.Format
		}
		found.Roots = append(found.Roots, root)
	}
	for _, image := range r.images {
		found.Images = append(found.Images, *image)
	}
	slices.SortFunc(found.Images, func(a, b Image) int {
		return cmp.Or(strings.Compare(a.Tag, b.Tag), strings.Compare(a.Digest, b.Digest))
	})
	return found
}

// about returns the reference to an image of the repository.
func (r *inspection) about(tag, digest string) imageref.Ref {
	ref := r.ref
	ref.Tag, ref.Digest = tag, digest
	return ref
}

// fault records what could not be checked under a trust root.
func (r *inspection) fault(root string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults[root] == nil {
		r.faults[root] = map[string]bool{}
	}
	r.faults[root][err.Error()] = true
}

// image returns the image of a tag and a digest. An image without a digest stands for a tag of
// which none is known yet.
func (r *inspection) image(tag, digest string) *Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := [2]string{tag, digest}
	if r.images[k] == nil {
		r.images[k] = &Image{Tag: tag, Digest: digest, Signatures: []Signature{}}
	}
	if digest != "" {
		delete(r.images, [2]string{tag, ""})
	}
	return r.images[k]
}

// has records that the registry has a digest for a tag.
func (r *inspection) has(tag, digest string) {
	image := r.image(tag, digest)
	r.mu.Lock()
	defer r.mu.Unlock()
	image.Registry = true
}

// evidence returns the evidence about an image under a trust root; nil: it could not be checked.
func (r *inspection) evidence(ctx context.Context, root string, about imageref.Ref) trust.Evidence {
	snapshot := r.Store.Load()
	if err := snapshot.Usable(root); err != nil {
		r.fault(root, err)
		return nil
	}
	k := trust.Key{Root: root, Subject: snapshot.Subject(root, about)}
	err := r.Tracker.Ensure(ctx, k)
	if instead, ok := snapshot.Tenant(k, r.Namespace); ok && err != nil {
		if r.Tracker.Ensure(ctx, instead) == nil {
			k, err = instead, nil
		}
	}
	if err != nil {
		r.fault(root, err)
		return nil
	}
	evidence, _, err := r.Store.Load().Evidence(k)
	if err != nil {
		r.fault(root, err)
		return nil
	}
	for _, fault := range evidence.Faults() {
		r.fault(root, fault)
	}
	return evidence
}

// tags returns the tags of the repository: those that are signed, and those of the registry.
func (r *inspection) tags(ctx context.Context) (tags, notes []string) {
	all := map[string]bool{}
	for _, root := range r.roots {
		snapshot := r.Store.Load()
		if snapshot.Usable(root) != nil {
			continue // verify records the fault
		}
		about := snapshot.Subject(root, r.about("latest", ""))
		if about.Tag != "" || about.Digest != "" {
			continue // the evidence is about one image alone
		}
		if evidence := r.evidence(ctx, root, r.about("latest", "")); evidence != nil {
			for _, s := range evidence.Statements("", "") {
				if s.Tag != "" {
					all[s.Tag] = true
				}
			}
		}
	}
	listed, note := r.list(ctx)
	if note != "" {
		notes = append(notes, note)
	}
	for _, tag := range listed {
		if !attached.MatchString(tag) {
			all[tag] = true
		}
	}
	tags = slices.Sorted(maps.Keys(all))
	if n := len(tags) - r.MaxTags; n > 0 {
		notes = append(notes, fmt.Sprintf("%d further tags are not shown; name a tag, or raise --max-tags", n))
		tags = tags[:r.MaxTags]
	}
	return tags, notes
}

// list lists the tags of the repository in its registry: through the first trust root that can, and
// else by Tags. note says what is missing.
func (r *inspection) list(ctx context.Context) (tags []string, note string) {
	var failed error
	snapshot := r.Store.Load()
	for _, root := range r.roots {
		of := snapshot.Root(root)
		if of == nil {
			continue
		}
		lister, ok := of.Verifier.(trust.Lister)
		if !ok {
			continue
		}
		k := trust.Key{Root: root, Subject: snapshot.Subject(root, r.about("latest", ""))}
		tags, more, err := lister.Tags(ctx, k.Subject, r.MaxTags)
		if instead, ok := snapshot.Tenant(k, r.Namespace); ok && err != nil {
			tags, more, err = lister.Tags(ctx, instead.Subject, r.MaxTags)
		}
		switch {
		case err != nil:
			failed = err
			continue
		case more:
			note = "the registry has further tags, which are not shown; name a tag, or raise --max-tags"
		}
		return tags, note
	}
	if failed == nil && r.Tags != nil {
		tags, failed = r.Tags(ctx, r.ref.Name())
	}
	if failed != nil {
		note = fmt.Sprintf("the tags that are not signed are missing: %v", failed)
	}
	return tags, note
}

// resolve finds the digests of each tag: those that are signed for it, and that of the registry.
func (r *inspection) resolve(ctx context.Context, tags []string) {
	var group errgroup.Group
	group.SetLimit(maxConcurrent)
	for _, tag := range tags {
		for _, root := range r.roots {
			group.Go(func() error {
				evidence := r.evidence(ctx, root, r.about(tag, ""))
				if evidence == nil {
					return nil
				}
				for _, digest := range evidence.Hints(tag) {
					r.has(tag, digest)
				}
				for _, s := range evidence.Statements(tag, "") {
					r.image(tag, s.Digest)
				}
				return nil
			})
		}
	}
	_ = group.Wait() // the faults are recorded
}

// verify finds the signatures of each image.
func (r *inspection) verify(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(maxConcurrent)
	for _, image := range slices.Collect(maps.Values(r.images)) {
		if image.Digest == "" {
			continue
		}
		group.Go(func() error {
			r.verifyImage(ctx, image)
			return nil
		})
	}
	_ = group.Wait() // the faults are recorded
}

// verifyImage finds the signatures of one image, which no other goroutine uses.
func (r *inspection) verifyImage(ctx context.Context, image *Image) {
	now, signed := r.Now(), map[string]bool{}
	var all []trust.Evidence
	for _, root := range r.roots {
		evidence := r.evidence(ctx, root, r.about(image.Tag, image.Digest))
		if evidence == nil {
			continue
		}
		all = append(all, evidence)
		signatures := signaturesIn(evidence, root, r.Store.Load().Root(root).Format, image.Tag, image.Digest, now)
		for _, s := range signatures {
			signed[s.Role] = true
		}
		image.Signatures = append(image.Signatures, signatures...)
	}
	unmet := slices.DeleteFunc(slices.Clone(r.roles), func(role string) bool { return signed[role] })
	if len(unmet) == 0 {
		return
	}
	for _, evidence := range all {
		for _, rejected := range evidence.Rejected(unmet, image.Tag, image.Digest) {
			if len(image.Rejected) < maxRejected {
				image.Rejected = append(image.Rejected, rejected.Sentence(shorten))
			}
		}
	}
}

// Faulty reports whether something could not be checked.
func (r *Repository) Faulty() bool {
	return slices.ContainsFunc(r.Roots, func(root Root) bool { return len(root.Faults) > 0 })
}
