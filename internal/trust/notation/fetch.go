package notation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
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
	// parallel bounds the requests for the signatures on a digest at one time.
	parallel = 8

	// artifactType is that of the manifests of signatures (Notary Project signature specification,
	// "Storage").
	artifactType = "application/vnd.cncf.notary.signature"
)

// registries reads image registries: *registry.Images.
type registries interface {
	Manifest(ctx context.Context, repository, digest string, limit int64) (registry.Manifest, error)
	Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor, error)
	Blob(ctx context.Context, repository, digest string, limit int64) ([]byte, error)
}

// found is what the registry has about one digest, and what could not be fetched of it.
type found struct {
	collection

	faults []*trust.Fault
	unread bool // the list of signatures could not be fetched
}

func (f *found) fail(where string, err error) {
	f.faults = append(f.faults, trust.AsFault(bydigest.Missing(where, err), v1alpha1.ReasonUnexpectedAnswer))
}

// fetcher fetches the signatures of one digest.
type fetcher struct {
	*verifier

	about  trust.Subject
	before *collection
}

// collect fetches the signatures that refer to the digest. Those that were fetched before are taken
// from there: the registry names them by their digests. If there was a fault, all of them stand in.
func (v *verifier) collect(ctx context.Context, about trust.Subject, before *collection) *found {
	f, all, where := &fetcher{verifier: v, about: about, before: before}, &found{}, about.Pulled+"@"+about.Digest
	list, err := v.registry.Referrers(ctx, about.Pulled, about.Digest, artifactType)
	if err != nil {
		all.fail("the referrers of "+where, err)
		all.unread = true
		return all
	}
	// A registry without filters may leave the type out. Such entries come last, so that they hide
	// no signature.
	slices.SortStableFunc(list, func(a, b registry.Descriptor) int {
		return untyped(&a) - untyped(&b)
	})
	if n := len(list); n > maxSignatures {
		list = list[:maxSignatures]
		all.faults = append(all.faults, bydigest.TooMany(where, n))
	}
	signatures, errs := make([]kept, len(list)), make([]error, len(list))
	var each errgroup.Group
	each.SetLimit(parallel)
	for i := range list {
		each.Go(func() error {
			signatures[i], errs[i] = f.signature(ctx, &list[i])
			return nil
		})
	}
	_ = each.Wait() // no function returns an error
	for i, err := range errs {
		if err != nil {
			all.fail(about.Pulled+"@"+list[i].Digest, err)
			signatures[i].ID = ""
		}
	}
	all.Signatures = f.merge(slices.DeleteFunc(signatures, func(s kept) bool { return s.ID == "" }), all.faults)
	// In any order of the list, so that those that are kept are the same again.
	slices.SortFunc(all.Signatures, func(a, b kept) int { return strings.Compare(a.ID, b.ID) })
	return all
}

func untyped(d *registry.Descriptor) int {
	if d.ArtifactType == "" {
		return 1
	}
	return 0
}

// merge adds the signatures that were fetched before if there was a fault.
func (f *fetcher) merge(all []kept, faults []*trust.Fault) []kept {
	if len(faults) == 0 {
		return all
	}
	for i := range f.before.Signatures {
		s := f.before.Signatures[i]
		if len(all) < 2*maxSignatures && !slices.ContainsFunc(all, func(other kept) bool { return other.ID == s.ID }) {
			all = append(all, s)
		}
	}
	return all
}

// signature fetches one signature. Its ID is empty where the manifest is of something else.
func (f *fetcher) signature(ctx context.Context, d *registry.Descriptor) (kept, error) {
	if n := slices.IndexFunc(f.before.Signatures, func(s kept) bool { return s.ID == d.Digest }); n >= 0 {
		return f.before.Signatures[n], nil
	}
	none := func(why string) (kept, error) { return kept{ID: d.Digest, Why: why}, nil }
	m, err := f.registry.Manifest(ctx, f.about.Pulled, d.Digest, maxSignature)
	switch {
	case err != nil && trust.AsFault(err, "").Reason == v1alpha1.ReasonTooLarge:
		return none(bydigest.TooLong("manifest"))
	case err != nil:
		return kept{}, err
	}
	read, why, err := bydigest.Decode(ctx, f.budget, m)
	switch {
	case err != nil:
		return kept{}, err
	case why != "":
		return none(why)
	case d.ArtifactType == "" && read.Kind() != artifactType:
		return kept{}, nil
	}
	layer := read.Layers[0]
	switch {
	case len(read.Layers) != 1:
		return none(fmt.Sprintf("has a manifest with %d layers; a signature has one", len(read.Layers)))
	case layer.MediaType != jws.MediaTypeEnvelope && layer.MediaType != cose.MediaTypeEnvelope:
		return none("has the media type " + shown(layer.MediaType) + ", which is no envelope")
	case layer.Size <= 0 || !imageref.ValidDigest(layer.Digest):
		return none("has a layer without a usable size or digest")
	case layer.Size > maxSignature:
		return none(bydigest.TooLong("layer"))
	}
	envelope, err := f.registry.Blob(ctx, f.about.Pulled, layer.Digest, layer.Size)
	if err != nil {
		return kept{}, err
	}
	return kept{ID: d.Digest, MediaType: layer.MediaType, Envelope: envelope}, nil
}
