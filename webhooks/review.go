package webhooks

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/json"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// What a review may hold beside its objects: users with their groups, options. Its objects are
// bounded where they are decoded.
const (
	maxRest   = 1 << 20 // bytes
	maxValues = 16 << 10
	// maxName bounds a name that is kept while a review is decided on, in bytes: no object has a
	// longer one.
	maxName = 253
	// maxUID bounds the UID of a review, in bytes. API servers send 36.
	maxUID = 128
	// maxUser is what the log has of the name of a user, in bytes.
	maxUser = 256
)

// errBulky says that decoding a review would cost more than any that an API server makes.
var errBulky = fmt.Errorf("it holds more than %d values or %d bytes beside its objects", maxValues, maxRest)

// decodeReview reads an AdmissionReview. The objects in it are most of it, and are decoded later,
// once their kind is known; they are cut out first, so that their JSON is not gone through twice
// more, and copied. They share memory with body.
func decodeReview(body []byte) (admissionv1.AdmissionReview, error) {
	rest, object, old, err := cutObjects(body)
	if err != nil {
		return admissionv1.AdmissionReview{}, err
	}
	var in admissionv1.AdmissionReview
	odd, err := json.UnmarshalStrict(rest, &in, json.DisallowDuplicateFields)
	switch {
	case err != nil:
		return admissionv1.AdmissionReview{}, fmt.Errorf("reading the review: %w", err)
	case len(odd) > 0:
		return admissionv1.AdmissionReview{}, fmt.Errorf("reading the review: %w", odd[0])
	case in.GroupVersionKind() != reviewKind():
		return admissionv1.AdmissionReview{}, fmt.Errorf("it is of kind %.80q, expected %q", in.GroupVersionKind(),
			reviewKind())
	case in.Request == nil:
		return admissionv1.AdmissionReview{}, errors.New("the review holds no request")
	}
	if err := checkNames(in.Request); err != nil {
		return admissionv1.AdmissionReview{}, err
	}
	if object != nil {
		in.Request.Object.Raw = object
	}
	if old != nil {
		in.Request.OldObject.Raw = old
	}
	return in, nil
}

// checkNames bounds what is kept and logged of a request: no API server serves an object by a
// longer name.
func checkNames(r *admissionv1.AdmissionRequest) error {
	if len(r.UID) > maxUID {
		return fmt.Errorf("request.uid is longer than %d bytes", maxUID)
	}
	for _, f := range []struct{ field, is string }{
		{"namespace", r.Namespace}, {"name", r.Name}, {"operation", string(r.Operation)},
		{"subResource", r.SubResource},
		{"kind.group", r.Kind.Group}, {"kind.version", r.Kind.Version}, {"kind.kind", r.Kind.Kind},
		{"resource.group", r.Resource.Group}, {"resource.version", r.Resource.Version},
		{"resource.resource", r.Resource.Resource},
	} {
		if len(f.is) > maxName {
			return fmt.Errorf("request.%s is longer than %d bytes", f.field, maxName)
		}
	}
	return nil
}

// cutObjects takes request.object and request.oldObject out of a review, and leaves null in their
// places. It judges nothing but form: a review that is no JSON is left whole, for the decoder to
// find fault with, and a key that comes twice does so in the rest too. So does one that is written
// with escapes, and what is no object is not cut out. The error says that the rest would cost too
// much.
func cutObjects(body []byte) (rest, object, old []byte, err error) {
	s := jsonscan.Scanner{Text: body}
	from := 0
	cut := func(key []byte) {
		at, isObject, values := s.Next, s.At('{'), s.Values
		s.Skip()
		part := &object
		switch string(key) {
		case `"object"`:
		case `"oldObject"`:
			part = &old
		default:
			return
		}
		if isObject && !s.Lost {
			rest = append(append(rest, body[from:at]...), "null"...)
			*part, from, s.Values = body[at:s.Next:s.Next], s.Next, values
		}
	}
	s.Blank()
	s.Members(func(key []byte) {
		if string(key) == `"request"` && s.At('{') {
			s.Members(cut)
		} else {
			s.Skip()
		}
	})
	s.End()
	if s.Lost {
		return body, nil, nil, nil // which the decoder refuses before it builds anything
	}
	if s.Values > maxValues || len(rest)+len(body)-from > maxRest {
		return nil, nil, nil, errBulky
	}
	return append(rest, body[from:]...), object, old, nil
}
