package webhooks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/json"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

// decodeReview reads an AdmissionReview. The objects in it are most of it, and are decoded later, once their kind is known; they are
// cut out first, so that their JSON is not gone through in vain. They share memory with body.
func decodeReview(body []byte) (admissionv1.AdmissionReview, error) {
	rest, object, old := cutObjects(body)
	var in admissionv1.AdmissionReview
	odd, err := json.UnmarshalStrict(rest, &in, json.DisallowDuplicateFields)
	switch {
	case err != nil:
		return admissionv1.AdmissionReview{}, fmt.Errorf("reading the review: %w", err)
	case len(odd) > 0:
		return admissionv1.AdmissionReview{}, fmt.Errorf("reading the review: %w", odd[0])
	case in.GroupVersionKind() != reviewKind():
		return admissionv1.AdmissionReview{}, fmt.Errorf("it is of kind %.80q, expected %q", in.GroupVersionKind(), reviewKind())
	case in.Request == nil:
		return admissionv1.AdmissionReview{}, errors.New("the review holds no request")
	}
	if object != nil {
		in.Request.Object.Raw = object
	}
	if old != nil {
		in.Request.OldObject.Raw = old
	}
	return in, nil
}

// cutObjects takes request.object and request.oldObject out of a review, and leaves null in their places. It judges nothing: it only
// finds where a JSON object ends, and there is one such place in what is valid. Whoever decodes the three parts finds fault with
// exactly what is faulty in the whole: a part that was cut in the wrong place is no JSON. What it cannot find stays in the rest.
func cutObjects(body []byte) (rest, object, old []byte) {
	s := jsonscan.Scanner{Text: body}
	type cut struct{ from, to int }
	var first, second cut
	s.Members(func(key []byte) {
		if !bytes.Equal(key, []byte(`"request"`)) || !s.At('{') {
			s.Skip()
			return
		}
		s.Members(func(key []byte) {
			at := s.Next
			begins := s.At('{')
			s.Skip()
			switch found := (cut{at, s.Next}); {
			case !begins || s.Lost:
			case bytes.Equal(key, []byte(`"object"`)):
				first = found
			case bytes.Equal(key, []byte(`"oldObject"`)):
				second = found
			}
		})
	})
	if s.Lost {
		return body, nil, nil
	}
	cuts := slices.DeleteFunc([]cut{first, second}, func(c cut) bool { return c.to == 0 })
	slices.SortFunc(cuts, func(a, b cut) int { return a.from - b.from })
	from := 0
	for _, c := range cuts {
		rest = append(append(rest, body[from:c.from]...), "null"...)
		from = c.to
	}
	part := func(c cut) []byte {
		if c.to == 0 {
			return nil
		}
		return body[c.from:c.to:c.to]
	}
	return append(rest, body[from:]...), part(first), part(second)
}
