package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// maxReview bounds a request: an object and its predecessor of the greatest size that the API server takes.
const maxReview = 7 << 20

var errTooLarge = errors.New("the request is larger than 7 MiB")

// endpoint is a handler of admission requests behind HTTP. Every answer is an AdmissionReview; what cannot be read is denied.
type endpoint admission.HandlerFunc

// ServeHTTP implements http.Handler.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	log := logf.Log.WithName("admission")
	body, err := readBody(r)
	var in admissionv1.AdmissionReview
	if err == nil {
		in, err = decodeReview(body)
	}
	if err != nil {
		log.Error(err, "Could not read an admission request")
		refused := refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest, "the request could not be read: "+err.Error())
		if errors.Is(err, errTooLarge) {
			refused = refusal(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, err.Error())
		}
		in.Response = &refused.AdmissionResponse
	} else {
		log := log.WithValues("requestID", in.Request.UID, "user", in.Request.UserInfo.Username, "operation", in.Request.Operation)
		in.Response = e.answer(logf.IntoContext(r.Context(), log), admission.Request{AdmissionRequest: *in.Request})
	}
	in.Request = nil
	in.SetGroupVersionKind(reviewKind())
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(in); err != nil {
		log.Error(err, "Could not answer an admission request")
	}
}

// answer has a request handled. A panic denies.
func (e endpoint) answer(ctx context.Context, req admission.Request) (answer *admissionv1.AdmissionResponse) {
	refuse := func(resp admission.Response) *admissionv1.AdmissionResponse {
		resp.UID = req.UID
		return &resp.AdmissionResponse
	}
	defer recovered(ctx, func(any) { answer = refuse(broke()) })
	resp := e(ctx, req)
	if err := resp.Complete(req); err != nil {
		logf.FromContext(ctx).Error(err, "Could not write down the patch")
		return refuse(broke())
	}
	return &resp.AdmissionResponse
}

func reviewKind() schema.GroupVersionKind {
	return admissionv1.SchemeGroupVersion.WithKind("AdmissionReview")
}

// readBody reads a request in full, into one piece of memory where its length is known.
func readBody(r *http.Request) ([]byte, error) {
	if is := r.Header.Get("Content-Type"); is != "application/json" {
		return nil, fmt.Errorf("the content type is %.80q, expected application/json", is)
	}
	if r.ContentLength > maxReview {
		return nil, errTooLarge
	}
	if r.ContentLength > 0 {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, fmt.Errorf("reading the request: %w", err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxReview+1))
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	if len(body) > maxReview {
		return nil, errTooLarge
	}
	return body, nil
}
