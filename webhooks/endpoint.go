package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/internal/text"
)

// maxReview bounds a request: an object and its predecessor of the greatest size that the API server takes.
const maxReview = 7 << 20

// maxClaim bounds the memory that a request is given for the length that it claims; nearly all are smaller.
const maxClaim = 64 << 10

var errTooLarge = errors.New("it is larger than 7 MiB")

// endpoint is a handler of admission requests behind HTTP. Every answer is an AdmissionReview; what cannot be read is denied.
type endpoint admission.HandlerFunc

// ServeHTTP implements http.Handler.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := logf.IntoContext(r.Context(), logf.Log.WithName("admission"))
	out := admissionv1.AdmissionReview{Response: e.answer(ctx, r)}
	out.SetGroupVersionKind(reviewKind())
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		logf.FromContext(ctx).Error(err, "Could not answer an admission request")
	}
}

// answer reads a request and has it handled. A panic denies, wherever it is.
func (e endpoint) answer(ctx context.Context, r *http.Request) (answer *admissionv1.AdmissionResponse) {
	var uid types.UID
	refuse := func(resp admission.Response) *admissionv1.AdmissionResponse {
		resp.UID = uid
		return &resp.AdmissionResponse
	}
	defer recovered(ctx, func(any) { answer = refuse(broke()) })
	body, err := readBody(r)
	var in admissionv1.AdmissionReview
	if err == nil {
		in, err = decodeReview(body)
	}
	if err != nil {
		return refuse(unreviewable(ctx, err))
	}
	uid = in.Request.UID
	log := logf.FromContext(ctx).WithValues("requestID", uid, "user", in.Request.UserInfo.Username, "operation", in.Request.Operation)
	ctx = logf.IntoContext(ctx, log)
	req := admission.Request{AdmissionRequest: *in.Request}
	resp := e(ctx, req)
	if err := resp.Complete(req); err != nil {
		log.Error(err, "Could not write down the patch")
		return refuse(broke())
	}
	return &resp.AdmissionResponse
}

// unreviewable answers what is no review. Anybody who reaches the port can send it, and have it quoted, so that is bounded.
func unreviewable(ctx context.Context, err error) admission.Response {
	message := text.Cut("the request could not be read: "+err.Error(), maxLine)
	logf.FromContext(ctx).Info("Could not read an admission request", "denial", message)
	if errors.Is(err, errTooLarge) {
		return refusal(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, message)
	}
	return refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest, message)
}

func reviewKind() schema.GroupVersionKind {
	return admissionv1.SchemeGroupVersion.WithKind("AdmissionReview")
}

// readBody reads a request in full. Its length is believed only as far as memory for it costs little: anybody can claim it.
func readBody(r *http.Request) ([]byte, error) {
	if is := r.Header.Get("Content-Type"); is != "application/json" {
		return nil, fmt.Errorf("the content type is %.80q, expected application/json", is)
	}
	if r.ContentLength > maxReview {
		return nil, errTooLarge
	}
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), maxClaim)) + bytes.MinRead)
	if _, err := body.ReadFrom(io.LimitReader(r.Body, maxReview+1)); err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	if body.Len() > maxReview {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}
