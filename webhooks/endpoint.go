package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/port"
	"github.com/countersign-dev/countersign/internal/text"
)

// maxReview bounds a request: an object and its predecessor of the greatest size that the API
// server takes.
const maxReview = 7 << 20

// How a request is charged, in bytes.
const (
	// requestCost is what a request costs beside its header and body: a stream, a goroutine, what
	// it is decided by.
	requestCost = 8 << 10
	// fieldCost is what a field of a header costs beside its name and value.
	fieldCost = 128
	// firstRead is what is read of a body at once. Nearly all are smaller.
	firstRead = 32 << 10
	// smallBody is how long a body is that takes of the share for small ones. Longer ones must find
	// room before more is read.
	smallBody = 256 << 10
	// decodeFactor is what decoding costs: each byte is held a second time, at most, by what is cut
	// out and copied of it. The number of its values is bounded apart.
	decodeFactor = 2
)

// slowArrival is from when on the time that the body took to arrive is taken off the time for the
// decision.
const slowArrival = 100 * time.Millisecond

// tellEvery is how often the log says that requests are refused for lack of room.
const tellEvery = time.Minute

var (
	errTooLarge = errors.New("it is larger than 7 MiB")
	errBroke    = errors.New("the reading broke off")
	errTooSlow  = errors.New("it did not arrive within")
)

// endpoint is a handler of admission requests behind HTTP. Every answer is an AdmissionReview, but
// where there is no room for a request; what cannot be read is denied.
type endpoint struct {
	handle  admission.HandlerFunc
	budget  *port.Budget
	metrics *metrics.Metrics
	// deadline bounds the time from the arrival of a request to its answer.
	deadline time.Duration
	// told is when the log last said that requests are refused, in Unix nanoseconds.
	told atomic.Int64
}

// ServeHTTP implements http.Handler.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := logf.IntoContext(r.Context(), logf.Log.WithName("admission"))
	arrived := time.Now()
	hold, err := e.budget.Begin(ctx, port.Client(r.RemoteAddr), requestCost+size(r.Header), w)
	if err != nil {
		e.refuse(w)
		return
	}
	defer hold.End()
	body, err := e.read(ctx, r, hold)
	if errors.Is(err, port.ErrBusy) || errors.Is(err, port.ErrTooSlow) {
		e.refuse(w)
		return
	}
	if took := time.Since(arrived); took > slowArrival {
		var cancel func()
		ctx, cancel = context.WithDeadline(ctx, arrived.Add(e.deadline))
		defer cancel()
	}
	out := admissionv1.AdmissionReview{Response: e.answer(context.WithValue(ctx, holdKey{}, hold), body, err)}
	out.SetGroupVersionKind(reviewKind())
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		logf.FromContext(ctx).Error(err, "Could not answer an admission request")
	}
}

// refuse answers a request for which there is no room, so that an API server tries again within its
// own deadline. There is no body: that could wait for whoever does not read it.
func (e *endpoint) refuse(w http.ResponseWriter) {
	e.metrics.Refused(metrics.RefusedBusy)
	now := time.Now().UnixNano()
	if told := e.told.Load(); now-told > int64(tellEvery) && e.told.CompareAndSwap(told, now) {
		logf.Log.WithName("admission").Info(
			"Refused requests for which there is no room; the metric countersign_admission_refused_total counts them")
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
}

// size is what a header takes, in bytes: a field without a value takes its part of a map all the
// same.
func size(h http.Header) (n int64) {
	for key, values := range h {
		n += int64(len(key)) + fieldCost
		for _, v := range values {
			n += int64(len(v))
		}
	}
	return n
}

// holdKey is the key of what a request takes of the budget.
type holdKey struct{}

// release gives back what the body of a request takes. Nothing may refer to it any more.
func release(ctx context.Context) {
	if hold, ok := ctx.Value(holdKey{}).(*port.Reservation); ok {
		hold.FreeBody()
	}
}

// read reads a request. A panic is an error.
func (e *endpoint) read(ctx context.Context, r *http.Request, hold *port.Reservation) (body []byte, err error) {
	defer recovered(ctx, func(any) { err = errBroke })
	return readBody(ctx, r, hold)
}

// answer has a request handled that was read, or not, and why. A panic denies, wherever it is.
func (e *endpoint) answer(ctx context.Context, body []byte, err error) (answer *admissionv1.AdmissionResponse) {
	var uid types.UID
	refuse := func(resp admission.Response) *admissionv1.AdmissionResponse {
		resp.UID = uid
		return &resp.AdmissionResponse
	}
	defer recovered(ctx, func(any) { answer = refuse(broke()) })
	var in admissionv1.AdmissionReview
	if err == nil {
		in, err = decodeReview(body)
	}
	switch {
	case errors.Is(err, errBroke):
		return refuse(broke())
	case err != nil:
		return refuse(unreviewable(ctx, err))
	}
	uid = in.Request.UID
	log := logf.FromContext(ctx).WithValues("requestID", uid, "user", text.Cut(in.Request.UserInfo.Username, maxUser),
		"operation", in.Request.Operation)
	ctx = logf.IntoContext(ctx, log)
	if conn := port.ConnOf(ctx); conn != nil {
		defer conn.Deciding()()
	}
	resp := e.handle(ctx, admission.Request{AdmissionRequest: *in.Request})
	if err := resp.Complete(admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: uid}}); err != nil {
		log.Error(err, "Could not write down the patch")
		return refuse(broke())
	}
	return &resp.AdmissionResponse
}

// unreviewable answers what is no review. Anybody who reaches the port can send it, and have it
// quoted, so that is bounded.
func unreviewable(ctx context.Context, err error) admission.Response {
	message := text.Cut("the request could not be read: "+err.Error(), maxLine)
	logf.FromContext(ctx).Info("Could not read an admission request", "denial", message)
	switch {
	case errors.Is(err, errTooLarge), errors.Is(err, errBulky):
		return refusal(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, message)
	case errors.Is(err, errTooSlow):
		return refusal(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, message)
	}
	return refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest, message)
}

func reviewKind() schema.GroupVersionKind {
	return admissionv1.SchemeGroupVersion.WithKind("AdmissionReview")
}

// clientOf returns the client that a request is from, empty where it is not known.
func clientOf(ctx context.Context) string {
	if hold, ok := ctx.Value(holdKey{}).(*port.Reservation); ok {
		return hold.Client()
	}
	return ""
}

// readBody reads a request in full. Memory is taken for what has come: the length that anybody can
// claim counts for a small one, and once smallBody bytes are there.
func readBody(ctx context.Context, r *http.Request, hold *port.Reservation) ([]byte, error) {
	if is := r.Header.Get("Content-Type"); is != "application/json" {
		return nil, fmt.Errorf("the content type is %.80q, expected application/json", is)
	}
	if r.ContentLength > maxReview {
		return nil, errTooLarge
	}
	var body []byte
	for {
		room, err := grow(ctx, hold, body, r.ContentLength)
		if err != nil {
			return nil, err
		}
		body = room
		for len(body) < cap(body) {
			n, err := r.Body.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			switch {
			case len(body) > maxReview:
				return nil, errTooLarge
			case errors.Is(err, io.EOF):
				return body, hold.Arrived()
			case err != nil:
				return nil, brokenOff(ctx, hold, err)
			}
		}
	}
}

// brokenOff says why a body broke off.
func brokenOff(ctx context.Context, hold *port.Reservation, err error) error {
	if slow := hold.Arrived(); slow != nil {
		return slow
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return tooSlow(ctx)
	}
	return fmt.Errorf("reading the request: %w", err)
}

// tooSlow returns errTooSlow with the time that the server gives a request to arrive.
func tooSlow(ctx context.Context) error {
	limit := DefaultLimits().Read
	if server, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok {
		limit = server.ReadTimeout
	}
	return fmt.Errorf("%w %s; try again", errTooSlow, limit)
}

// grow returns a body with more room, which has been taken of the budget.
func grow(ctx context.Context, hold *port.Reservation, body []byte, claim int64) ([]byte, error) {
	const behind = 512 // so that the end of the body is met without growing once more
	size := int64(cap(body)) * 4
	switch {
	case cap(body) == 0 && claim > 0:
		size = min(claim+behind, firstRead)
	case cap(body) == 0:
		size = firstRead
	case size > smallBody && cap(body) < smallBody:
		size = smallBody
	case size > smallBody && claim > 0:
		size = claim + behind
	case size > smallBody:
		size = maxReview + behind
	}
	if err := hold.Body(ctx, size*decodeFactor); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, size), body...), nil
}
