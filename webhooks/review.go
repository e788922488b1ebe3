package webhooks

import (
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/json"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// The limits of a review without its objects: user, groups, options. The objects have limits where
// they are decoded.
const (
	maxRest   = 1 << 20 // bytes
	maxValues = 16 << 10
	// maxName is the maximum length of the names in a review, in bytes. No object has a longer
	// name.
	maxName = 253
	// maxUID is the maximum length of the UID of a review, in bytes. API servers send 36.
	maxUID = 128
	// maxUser is the maximum length of a user's name in the log, in bytes.
	maxUser = 256
)

// errTooCostly says that decoding a review would cost more than any review of an API server does.
var errTooCostly = fmt.Errorf("it holds more than %d values or %d bytes beside its objects", maxValues, maxRest)

// decodeReview decodes an AdmissionReview. It cuts the objects out first: they are most of the
// review, and are decoded later, once their kind is known. So their JSON is neither copied nor
// scanned twice more. The objects share memory with body.
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

// checkNames returns an error if a name or the UID of a request is too long. They are kept and
// logged, and no API server sends longer ones.
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

// cutObjects cuts request.object and request.oldObject out of a review, and writes null in their
// stead. It leaves all checks to the decoder: a review that is not valid JSON stays whole, and a
// repeated key stays repeated in the rest. It does not cut out a value that is not an object, or
// whose key has an escape. It returns errTooCostly if the rest is too large to decode.
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
		if isObject && !s.Invalid {
			rest = append(append(rest, body[from:at]...), "null"...)
			*part, from, s.Values = body[at:s.Next:s.Next], s.Next, values
		}
	}
	s.SkipSpace()
	s.Members(func(key []byte) {
		if string(key) == `"request"` && s.At('{') {
			s.Members(cut)
		} else {
			s.Skip()
		}
	})
	s.End()
	if s.Invalid {
		return body, nil, nil, nil // the decoder refuses it before it allocates anything
	}
	if s.Values > maxValues || len(rest)+len(body)-from > maxRest {
		return nil, nil, nil, errTooCostly
	}
	return append(rest, body[from:]...), object, old, nil
}
