package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/pullsecrets"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/workload"
)

// parsedRequest is the part of an admission request that a decision needs.
type parsedRequest struct {
	kind   workload.Kind
	object workload.Object
	// images are the images to check: all of a new object, and those that an update adds or
	// changes.
	images []workload.Image
	// oldPins are references of the old object that could replace images of an update, by path.
	// Each names the tag of the updated image and a digest. They are decided on like other images.
	oldPins map[string]string
}

// readAndFree parses a request. It then frees the memory that is not needed while evidence is
// fetched: the objects, the user and the options.
func (g *Gate) readAndFree(ctx context.Context, req *admission.Request) (parsedRequest, error) {
	r, err := g.read(*req)
	if g.PullSecrets != nil && err == nil && len(r.images) > 0 {
		p := r.kind.PullSecrets(req.Object.Raw)
		g.PullSecrets.Note(req.Namespace, pullsecrets.User{Secrets: p.Names, ServiceAccount: p.ServiceAccount})
	}
	r.object.Name, r.object.UID = text.Cut(r.object.Name, maxName), text.Cut(r.object.UID, maxUID)
	*req = admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Kind: req.Kind, Namespace: req.Namespace, Name: req.Name, DryRun: req.DryRun,
	}}
	freeBody(ctx)
	return r, err
}

// read returns the images to check. A request that it cannot parse is an error, never a request
// without images.
func (g *Gate) read(req admission.Request) (parsedRequest, error) {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return parsedRequest{}, fmt.Errorf(
			"operation %q adds no images; remove it from the rules of the webhook", req.Operation)
	}
	if req.Namespace == "" {
		return parsedRequest{}, errors.New("the request names no namespace, and every workload is in one")
	}
	kind, err := g.Kinds.Find(req.Resource.Group, req.Resource.Version, req.Resource.Resource, req.SubResource)
	if err != nil {
		return parsedRequest{}, err
	}
	object, err := kind.Read(req.Object.Raw)
	if err != nil && missingBefore(kind, req, err) {
		return parsedRequest{kind: kind}, nil
	}
	if err != nil {
		if kind.Template != "" {
			err = fmt.Errorf("%w; the pod template is looked for at %s, where the manager's --workload-kinds has it",
				err, kind.Template)
		}
		return parsedRequest{}, err
	}
	r := parsedRequest{kind: kind, object: object, images: object.Images}
	if req.Operation == admissionv1.Update {
		// If the old object cannot be parsed, all images count as changed.
		if old, err := kind.Read(req.OldObject.Raw); err == nil {
			r.images = workload.Changed(old.Images, object.Images)
			r.oldPins = findOldPins(workload.Replaced(old.Images, r.images), r.images)
		}
	}
	return r, nil
}

// findOldPins returns, by path, the replaced references that name a digest and belong to an image
// that names none, with the same tag and repository. It compares the names under which the
// repositories are signed, so that a corrected spelling is not replaced by the old one.
func findOldPins(replaced map[string]string, images []workload.Image) map[string]string {
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

// missingBefore reports whether an update of an object without a pod template leaves it without
// one. Such an update adds no image. Objects like that, of further kinds, may be older than the
// operator, and removing a finalizer from them must work so that their namespace can be deleted.
func missingBefore(kind workload.Kind, req admission.Request, err error) bool {
	is, lacks := errors.AsType[*workload.MissingError](err)
	if !lacks || req.Operation != admissionv1.Update {
		return false
	}
	_, err = kind.Read(req.OldObject.Raw)
	was, lacked := errors.AsType[*workload.MissingError](err)
	return lacked && was.Path == is.Path
}

// ownedTemplate reports whether a controller created the object from its own template. If Mutate
// changed such an object, the controller would see a difference and create another object, again
// and again. So its template is not pinned. The Pods that are created from it are.
func (r *parsedRequest) ownedTemplate() bool { return !r.kind.IsPod() && r.object.Controlled }

// name returns the name for logs. For an object without a name yet, that is its generateName.
func (r *parsedRequest) name(req admission.Request) string {
	if req.Name != "" {
		return req.Name
	}
	return r.object.Name
}
