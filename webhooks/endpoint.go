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

// maxReview is the maximum length of a request in bytes: an object and its predecessor, each of the
// largest size that the API server allows.
const maxReview = 7 << 20

// The memory that a request reserves, in bytes.
const (
	// requestCost is the memory beside header and body: a stream, a goroutine, the decisions.
	requestCost = 8 << 10
	// fieldCost is the memory of a header field beside its name and value.
	fieldCost = 128
	// firstRead is the size of the first buffer for a body. Nearly all bodies fit into it.
	firstRead = 32 << 10
	// smallBody is the largest buffer in the share for small bodies. A longer body needs memory of
	// the large share before more of it is read.
	smallBody = 256 << 10
	// decodeFactor is how many bytes one byte of a body needs: decoding copies each byte at most
	// once. The number of values has a limit of its own.
	decodeFactor = 2
)

// slowArrival is how long a body may take to arrive before its arrival counts against the time for
// the decision.
const slowArrival = 100 * time.Millisecond

// refusalLogInterval is how often the log reports requests that were refused for lack of memory.
const refusalLogInterval = time.Minute

var (
	errTooLarge = errors.New("it is larger than 7 MiB")
	errPanicked = errors.New("reading it panicked")
	errTooSlow  = errors.New("it did not arrive within")
)

// endpoint serves admission requests over HTTP. Every answer is an AdmissionReview, except 429 when
// no memory is left for a request. A request that cannot be parsed is denied.
type endpoint struct {
	handle  admission.HandlerFunc
	budget  *port.Budget
	metrics *metrics.Metrics
	// deadline is the time from the arrival of a request to its answer.
	deadline time.Duration
	// refusalLogged is when the log last reported refused requests, in Unix nanoseconds.
	refusalLogged atomic.Int64
}

// ServeHTTP implements http.Handler.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := logf.IntoContext(r.Context(), logf.Log.WithName("admission"))
	arrived := time.Now()
	memory, err := e.budget.Begin(ctx, port.Client(r.RemoteAddr), requestCost+headerSize(r.Header), w)
	if err != nil {
		e.refuseBusy(w)
		return
	}
	defer memory.End()
	body, err := e.read(ctx, r, memory)
	if errors.Is(err, port.ErrBusy) || errors.Is(err, port.ErrTooSlow) {
		e.refuseBusy(w)
		return
	}
	if took := time.Since(arrived); took > slowArrival {
		var cancel func()
		ctx, cancel = context.WithDeadline(ctx, arrived.Add(e.deadline))
		defer cancel()
	}
	out := admissionv1.AdmissionReview{Response: e.answer(context.WithValue(ctx, memoryKey{}, memory), body, err)}
	out.SetGroupVersionKind(reviewKind())
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		logf.FromContext(ctx).Error(err, "Could not answer an admission request")
	}
}

// refuseBusy answers 429 to a request for which no memory is left, so that the API server retries
// within its own deadline. The answer has no body: a write would block on a client that does not
// read.
func (e *endpoint) refuseBusy(w http.ResponseWriter) {
	e.metrics.Refused(metrics.RefusedBusy)
	now := time.Now().UnixNano()
	if last := e.refusalLogged.Load(); now-last > int64(refusalLogInterval) &&
		e.refusalLogged.CompareAndSwap(last, now) {
		logf.Log.WithName("admission").Info("Refused requests because no memory was left for them; " +
			"the metric countersign_admission_refused_total counts them")
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
}

// headerSize returns how many bytes of memory a header needs. A field without a value still needs
// fieldCost for its entry in the map.
func headerSize(h http.Header) (n int64) {
	for key, values := range h {
		n += int64(len(key)) + fieldCost
		for _, v := range values {
			n += int64(len(v))
		}
	}
	return n
}

// memoryKey is the context key for the memory that a request has reserved.
type memoryKey struct{}

// freeBody releases the memory of a request's body. Nothing may refer to the body any more.
func freeBody(ctx context.Context) {
	if memory, ok := ctx.Value(memoryKey{}).(*port.Reservation); ok {
		memory.FreeBody()
	}
}

// read reads the body of a request. It turns a panic into errPanicked.
func (e *endpoint) read(ctx context.Context, r *http.Request, memory *port.Reservation) (body []byte, err error) {
	defer recoverPanic(ctx, func(any) { err = errPanicked })
	return readBody(ctx, r, memory)
}

// answer decodes and handles a request. err is the error of reading body, if any. Every error and
// every panic denies.
func (e *endpoint) answer(ctx context.Context, body []byte, err error) (answer *admissionv1.AdmissionResponse) {
	var uid types.UID
	refuse := func(resp admission.Response) *admissionv1.AdmissionResponse {
		resp.UID = uid
		return &resp.AdmissionResponse
	}
	defer recoverPanic(ctx, func(any) { answer = refuse(panicked()) })
	var in admissionv1.AdmissionReview
	if err == nil {
		in, err = decodeReview(body)
	}
	switch {
	case errors.Is(err, errPanicked):
		return refuse(panicked())
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
		log.Error(err, "Could not encode the patch")
		return refuse(panicked())
	}
	return &resp.AdmissionResponse
}

// unreviewable returns the denial of a request that is not a valid review. The error may quote the
// request, which any client can send, so the message is cut to maxLine bytes.
func unreviewable(ctx context.Context, err error) admission.Response {
	message := text.Cut("the request could not be read: "+err.Error(), maxLine)
	logf.FromContext(ctx).Info("Could not read an admission request", "denial", message)
	switch {
	case errors.Is(err, errTooLarge), errors.Is(err, errTooCostly):
		return refusal(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, message)
	case errors.Is(err, errTooSlow):
		return refusal(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, message)
	}
	return refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest, message)
}

func reviewKind() schema.GroupVersionKind {
	return admissionv1.SchemeGroupVersion.WithKind("AdmissionReview")
}

// clientOf returns the client that sent a request, empty if it is not known.
func clientOf(ctx context.Context) string {
	if memory, ok := ctx.Value(memoryKey{}).(*port.Reservation); ok {
		return memory.Client()
	}
	return ""
}

// readBody reads a body in full. It reserves memory as data arrives. It trusts the Content-Length,
// which any client can claim, only up to firstRead bytes and after smallBody bytes have arrived.
func readBody(ctx context.Context, r *http.Request, memory *port.Reservation) ([]byte, error) {
	if is := r.Header.Get("Content-Type"); is != "application/json" {
		return nil, fmt.Errorf("the content type is %.80q, expected application/json", is)
	}
	if r.ContentLength > maxReview {
		return nil, errTooLarge
	}
	var body []byte
	for {
		grown, err := grow(ctx, memory, body, r.ContentLength)
		if err != nil {
			return nil, err
		}
		body = grown
		for len(body) < cap(body) {
			n, err := r.Body.Read(body[len(body):cap(body)])
			body = body[:len(body)+n]
			switch {
			case len(body) > maxReview:
				return nil, errTooLarge
			case errors.Is(err, io.EOF):
				return body, memory.Arrived()
			case err != nil:
				return nil, readError(ctx, memory, err)
			}
		}
	}
}

// readError returns why the reading of a body failed: an eviction, a timeout or the error itself.
func readError(ctx context.Context, memory *port.Reservation, err error) error {
	if slow := memory.Arrived(); slow != nil {
		return slow
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return tooSlow(ctx)
	}
	return fmt.Errorf("reading the request: %w", err)
}

// tooSlow returns errTooSlow with the server's timeout for the arrival of a request.
func tooSlow(ctx context.Context) error {
	limit := DefaultLimits().Read
	if server, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok {
		limit = server.ReadTimeout
	}
	return fmt.Errorf("%w %s; try again", errTooSlow, limit)
}

// grow returns the body in a larger buffer, for which it has reserved memory. claim is the
// Content-Length, negative if there is none.
func grow(ctx context.Context, memory *port.Reservation, body []byte, claim int64) ([]byte, error) {
	const spare = 512 // so that Read returns io.EOF without another buffer
	size := int64(cap(body)) * 4
	switch {
	case cap(body) == 0 && claim > 0:
		size = min(claim+spare, firstRead)
	case cap(body) == 0:
		size = firstRead
	case size > smallBody && cap(body) < smallBody:
		size = smallBody
	case size > smallBody && claim > 0:
		size = claim + spare
	case size > smallBody:
		size = maxReview + spare
	}
	if err := memory.Body(ctx, size*decodeFactor); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, size), body...), nil
}
