package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/workload"
)

// review is a request as far as it matters.
type review struct {
	kind   workload.Kind
	object workload.Object
	// images are those that the request brings in: all of a new object, what an update changes or
	// adds.
	images []workload.Image
	// pinned has references of the old object that could stay where the images of an update are, by
	// path: each names a digest under the tag that the update has. They are decided on like any
	// other.
	pinned map[string]string
}

// take reads a request, and lets go of all of it that is not needed while evidence is waited for,
// as its objects, the user and the options.
func (g *Gate) take(ctx context.Context, req *admission.Request) (review, error) {
	r, err := g.read(*req)
	r.object.Name, r.object.UID = text.Cut(r.object.Name, maxName), text.Cut(r.object.UID, maxUID)
	*req = admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Kind: req.Kind, Namespace: req.Namespace, Name: req.Name, DryRun: req.DryRun,
	}}
	release(ctx)
	return r, err
}

// read returns the images to check. What is not understood is an error, never an empty review.
func (g *Gate) read(req admission.Request) (review, error) {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return review{}, fmt.Errorf(
			"operation %q is not one that images come in by; remove it from the rules of the webhook", req.Operation)
	}
	if req.Namespace == "" {
		return review{}, errors.New("the request names no namespace, and every workload is in one")
	}
	kind, err := g.Kinds.Find(req.Resource.Group, req.Resource.Version, req.Resource.Resource, req.SubResource)
	if err != nil {
		return review{}, err
	}
	object, err := kind.Read(req.Object.Raw)
	if err != nil && lackedBefore(kind, req, err) {
		return review{kind: kind}, nil
	}
	if err != nil {
		if kind.Template != "" {
			err = fmt.Errorf("%w; the pod template is looked for at %s, where the manager's --workload-kinds has it",
				err, kind.Template)
		}
		return review{}, err
	}
	r := review{kind: kind, object: object, images: object.Images}
	if req.Operation == admissionv1.Update {
		// An old object that cannot be read vouches for nothing: all images count as new.
		if old, err := kind.Read(req.OldObject.Raw); err == nil {
			r.images = workload.Changed(old.Images, object.Images)
			r.pinned = pinnedBefore(workload.Replaced(old.Images, r.images), r.images)
		}
	}
	return r, nil
}

// pinnedBefore returns, by path, what the images replace, where that names a digest and they name
// none, under the same tag of the same repository. The name of the repository is compared as it is
// signed: whoever corrects its spelling wants the new one.
func pinnedBefore(replaced map[string]string, images []workload.Image) map[string]string {
	pinned := map[string]string{}
	for _, i := range images {
		old := replaced[i.Path]
		if !strings.Contains(old, "@") {
			continue
		}
		was, err := imageref.Parse(old)
		is, err2 := imageref.Parse(i.Image)
		if err == nil && err2 == nil && is.Digest == "" && was.Name() == is.Name() && was.Tag == is.Tag {
			pinned[i.Path] = old
		}
	}
	return pinned
}

// lackedBefore reports whether an update leaves an object without a pod template as it was, which
// brings nothing in. Such objects of further kinds were there before the operator, and a finalizer
// must come off them for their namespace to end.
func lackedBefore(kind workload.Kind, req admission.Request, err error) bool {
	is, lacks := errors.AsType[*workload.MissingError](err)
	if !lacks || req.Operation != admissionv1.Update {
		return false
	}
	_, err = kind.Read(req.OldObject.Raw)
	was, lacked := errors.AsType[*workload.MissingError](err)
	return lacked && was.Path == is.Path
}

// ownedTemplate reports whether the object was made by a controller from a template of its own.
// Such a controller compares the two, and would make another and yet another object if they
// differed, so a template in it is left alone; the Pods made of it are pinned all the same.
func (r *review) ownedTemplate() bool { return !r.kind.IsPod() && r.object.Controlled }

// name returns the name for logs; what is still to be named has the prefix of its name.
func (r *review) name(req admission.Request) string {
	if req.Name != "" {
		return req.Name
	}
	return r.object.Name
}
