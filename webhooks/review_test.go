package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	kjson "sigs.k8s.io/json"

	"github.com/countersign-dev/countersign/internal/port"
)

// decodeWhole decodes a review without cutting out its objects.
func decodeWhole(body []byte) (in admissionv1.AdmissionReview, ok bool) {
	odd, err := kjson.UnmarshalStrict(body, &in, kjson.DisallowDuplicateFields)
	return in, err == nil && len(odd) == 0 && in.GroupVersionKind() == reviewKind() && in.Request != nil
}

// FuzzReview checks that cutting out the objects changes neither the decoded review nor whether it
// is refused.
func FuzzReview(f *testing.F) {
	const head = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":`
	for _, request := range []string{
		`{"uid":"7","object":{"a":"}"},"oldObject":{"b":["{\"",{}]}}`, `{"object":null,"oldObject":null}`,
		`{ "oldObject" : { } , "object" : {"a":1} , "uid" : "8" }`,
		`{"object":{"a":1},"object":{"b":2}}`, `{"obj\u0065ct":{"a":1}}`, `{"object":{"a":1},"obj\u0065ct":{"b":1}}`,
		`{"object":{"a":[}]}`, `{"object":{"a":1]}`, `{"object":"x"}`,
		`{"object":{"a":1}`, `{"object":{"a\\":"\\\""}}`, `{"object":{}}},"request":{"object":{"a":1}}`, `[]`, `null`,
		`{"object":[{"a":1}]}`, `{"dryRun":true,"object":{"a":1e5},"uid":3}`, `{"\`,
		`{"object":{"a":1},"Object":{"b":2},"oldObject":null}`, `{"object":{"a":1},"oldObject":[1]}`,
	} {
		f.Add([]byte(head + request + "}"))
	}
	f.Add([]byte(`{"request":{"object":{"a":1}},"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		want, ok := decodeWhole(body)
		got, err := decodeReview(slices.Clip(bytes.Clone(body)))
		if errors.Is(err, errTooCostly) {
			return
		}
		if ok != (err == nil) {
			t.Fatalf("got the error %v, want as for the whole: accepted %t", err, ok)
		}
		if diff := cmp.Diff(want, got); ok && diff != "" {
			t.Fatalf("(-whole +got):\n%s", diff)
		}
	})
}

// A body that is not a valid review is answered with a review that denies.
func TestThreatUnreadableReviewsAreDenied(t *testing.T) {
	b := newBench(t)
	const good = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"7"}}`
	cases := map[string]struct {
		contentType, body string
		length            int64
		code              int32
		want              string
	}{
		"nothing": {body: "", want: "reading the review"},
		"no JSON": {body: "{", want: "reading the review"},
		"a list":  {body: "[]", want: "reading the review"},
		"two requests": {
			body: strings.Replace(good, `"request"`, `"request":{},"request"`, 1), want: `duplicate field "request"`,
		},
		"two objects": {
			body: strings.Replace(good, `"uid"`, `"object":{},"object":{},"uid"`, 1),
			want: `duplicate field "request.object"`,
		},
		"another version":  {body: strings.Replace(good, "v1", "v1beta1", 1), want: "v1beta1"},
		"another kind":     {body: strings.Replace(good, "AdmissionReview", "Review", 1), want: "Review"},
		"no request":       {body: strings.Replace(good, "request", "response", 1), want: "holds no request"},
		"not as JSON":      {contentType: "text/plain", body: good, want: "text/plain"},
		"cut off":          {body: good[:len(good)-1], want: "unexpected end of JSON input"},
		"within an escape": {body: `{"request":{"\`, want: "reading the review"},
		"trailing data":    {body: good + "{}", want: "after top-level value"},
		"too deep": {
			body: strings.Replace(good, `"7"`, strings.Repeat("[", 10000)+strings.Repeat("]", 10000), 1),
			want: "exceeded max depth",
		},
		"a long number": {
			body: `{"response":{"status":{"code":` + strings.Repeat("1", 1<<19) + `}}}`,
			want: "cannot unmarshal number 111",
		},
		"many groups": {
			body: strings.Replace(good, `"7"`, `"7","userInfo":{"groups":[""`+strings.Repeat(`,""`, maxValues)+`]}`, 1),
			code: http.StatusRequestEntityTooLarge, want: "beside its objects",
		},
		"many values": {
			body: strings.Replace(good, `"7"`, `"7","obj\u0065ct":{"":0`+strings.Repeat(`,"":0`, maxValues)+`}`, 1),
			code: http.StatusRequestEntityTooLarge, want: "beside its objects",
		},
		"a list as object": {
			body: strings.Replace(good, `"7"`, `"7","object":[{}`+strings.Repeat(`,{}`, maxValues)+`]`, 1),
			code: http.StatusRequestEntityTooLarge, want: "beside its objects",
		},
		"a bulky user": {
			body: strings.Replace(good, `"7"`, `"7","userInfo":{"username":"`+strings.Repeat(`x`, maxRest)+`"}`, 1),
			code: http.StatusRequestEntityTooLarge, want: "beside its objects",
		},
		"more than is read": {
			body: strings.Repeat(" ", maxReview+1), length: -1, code: http.StatusRequestEntityTooLarge,
			want: "larger than 7 MiB",
		},
		"a greater length": {
			body: good, length: maxReview + 1, code: http.StatusRequestEntityTooLarge, want: "larger than 7 MiB",
		},
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
				t.Fatalf("got %q, %v, want a review", w.Body, err)
			}
			if c.code == 0 {
				c.code = http.StatusBadRequest
			}
			if got := answer.Response; got.Allowed || got.Result.Code != c.code ||
				!strings.Contains(got.Result.Message, c.want) {
				t.Errorf("got %+v: %.500s, want a denial with %d and %q", got, got.Result.Message, c.code, c.want)
			} else if len(got.Result.Message) > maxLine {
				t.Errorf("got a message of %d bytes, want at most %d", len(got.Result.Message), maxLine)
			}
		})
	}
}

// newReservation returns the reservation of a request in a budget of its own.
func newReservation(t *testing.T) *port.Reservation {
	t.Helper()
	r, err := port.NewBudget(port.DefaultLimits()).Begin(t.Context(), "client", requestCost, httptest.NewRecorder())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A body of the largest size is read in full, with or without a Content-Length. A Content-Length
// alone costs no memory.
func TestBodiesAreReadInFull(t *testing.T) {
	whole := strings.Repeat("x", maxReview)
	for name, length := range map[string]int64{"Content-Length": maxReview, "no Content-Length": -1} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ValidatePath, strings.NewReader(whole))
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = length
		if body, err := readBody(t.Context(), r, newReservation(t)); err != nil || string(body) != whole {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(body), err, len(whole))
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ValidatePath, http.NoBody)
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = maxReview
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readBody(t.Context(), r, newReservation(t)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<20 {
		t.Errorf("a Content-Length alone: got %d bytes allocated, want at most %d", allocated, 1<<20)
	}
}

// A panic anywhere in a request denies it, and the answer has the UID of the request.
func TestThreatPanicAnywhereDenies(t *testing.T) {
	const good = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"7"}}`
	handler := &endpoint{
		handle: func(context.Context, admission.Request) admission.Response { panic("handler") },
		budget: port.NewBudget(port.DefaultLimits()), deadline: time.Minute,
	}
	for name, c := range map[string]struct {
		body io.Reader
		uid  types.UID
	}{"reading": {body: panics{}}, "handling": {body: strings.NewReader(good), uid: "7"}} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, ValidatePath, c.body)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		var answer admissionv1.AdmissionReview
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
			t.Fatalf("%s: got %q, %v, want a review", name, w.Body, err)
		}
		if wantDenied(t, answer.Response, 500); answer.Response.UID != c.uid {
			t.Errorf("%s: got the UID %q, want %q", name, answer.Response.UID, c.uid)
		}
	}
}

type panics struct{}

func (panics) Read([]byte) (int, error) { panic("reader") }
