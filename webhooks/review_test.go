package webhooks

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	kjson "sigs.k8s.io/json"
)

// decodeWhole reads a review without cutting anything out of it.
func decodeWhole(body []byte) (in admissionv1.AdmissionReview, ok bool) {
	odd, err := kjson.UnmarshalStrict(body, &in, kjson.DisallowDuplicateFields)
	return in, err == nil && len(odd) == 0 && in.GroupVersionKind() == reviewKind() && in.Request != nil
}

// FuzzReview says that what is cut out and decoded later is what decoding the whole would have given, and that nothing is accepted
// which it would have refused.
func FuzzReview(f *testing.F) {
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":`
	for _, request := range []string{
		`{"uid":"7","object":{"a":"}"},"oldObject":{"b":["{\"",{}]}}`, `{"object":null,"oldObject":null}`, `{ "oldObject" : { } , "object" : {"a":1} , "uid" : "8" }`,
		`{"object":{"a":1},"object":{"b":2}}`, `{"obj\u0065ct":{"a":1}}`, `{"object":{"a":1},"obj\u0065ct":{"b":1}}`, `{"object":{"a":[}]}`, `{"object":{"a":1]}`, `{"object":"x"}`,
		`{"object":{"a":1}`, `{"object":{"a\\":"\\\""}}`, `{"object":{}}},"request":{"object":{"a":1}}`, `[]`, `null`, `{"object":[{"a":1}]}`, `{"dryRun":true,"object":{"a":1e5},"uid":3}`,
	} {
		f.Add([]byte(head + request + "}"))
	}
	f.Add([]byte(`{"request":{"object":{"a":1}},"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		want, ok := decodeWhole(body)
		got, err := decodeReview(bytes.Clone(body))
		if err != nil {
			if ok {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		whole := json.Valid(got.Request.Object.Raw) || got.Request.Object.Raw == nil
		old := json.Valid(got.Request.OldObject.Raw) || got.Request.OldObject.Raw == nil
		if !ok && whole && old {
			t.Fatalf("accepted what is refused as a whole: %q %q", got.Request.Object.Raw, got.Request.OldObject.Raw)
		}
		if !ok {
			return // whoever decodes the object finds it
		}
		if !bytes.Equal(got.Request.Object.Raw, want.Request.Object.Raw) || !bytes.Equal(got.Request.OldObject.Raw, want.Request.OldObject.Raw) {
			t.Fatalf("objects %q and %q, want %q and %q", got.Request.Object.Raw, got.Request.OldObject.Raw, want.Request.Object.Raw, want.Request.OldObject.Raw)
		}
		if got.Request.UID != want.Request.UID || got.Request.Namespace != want.Request.Namespace || got.Request.Resource != want.Request.Resource {
			t.Fatalf("request %+v, want %+v", got.Request, want.Request)
		}
	})
}

// What is no review is denied, in a review, and asks nobody.
func TestThreatUnreadableReviewsAreDenied(t *testing.T) {
	b := newBench(t)
	const good = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"7"}}`
	cases := map[string]struct {
		contentType, body string
		length            int64
		code              int32
		want              string
	}{
		"nothing":           {body: "", want: "reading the review"},
		"no JSON":           {body: "{", want: "reading the review"},
		"a list":            {body: "[]", want: "reading the review"},
		"two requests":      {body: strings.Replace(good, `"request"`, `"request":{},"request"`, 1), want: `duplicate field "request"`},
		"two objects":       {body: strings.Replace(good, `"uid"`, `"object":{},"object":{},"uid"`, 1), want: `duplicate field "request.object"`},
		"another version":   {body: strings.Replace(good, "v1", "v1beta1", 1), want: "v1beta1"},
		"another kind":      {body: strings.Replace(good, "AdmissionReview", "Review", 1), want: "Review"},
		"no request":        {body: strings.Replace(good, "request", "response", 1), want: "holds no request"},
		"not as JSON":       {contentType: "text/plain", body: good, want: "text/plain"},
		"cut off":           {body: good, length: int64(len(good)) + 1, want: "unexpected EOF"},
		"more than is read": {body: strings.Repeat(" ", maxReview+1), length: -1, code: http.StatusRequestEntityTooLarge, want: "larger than 7 MiB"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ValidatePath, strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			if c.length != 0 {
				r.ContentLength = c.length
			}
			w := httptest.NewRecorder()
			b.handler.ServeHTTP(w, r)
			var answer admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
				t.Fatalf("%q: %v", w.Body, err)
			}
			if c.code == 0 {
				c.code = http.StatusBadRequest
			}
			if got := answer.Response; got.Allowed || got.Result.Code != c.code || !strings.Contains(got.Result.Message, c.want) {
				t.Errorf("answered %+v: %+v, want %d with %q", got, got.Result, c.code, c.want)
			}
		})
	}
}
