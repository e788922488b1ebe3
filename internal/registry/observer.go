package registry

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Observer receives each request to a server, sent or not. It must not block, and is called from
// several goroutines at once.
type Observer interface {
	Requested(Exchange)
}

// Exchange is one request to a host, and its outcome.
type Exchange struct {
	// Host is the name of the host, in lower case, with its port unless that is the scheme's
	// default. It is valid UTF-8. Unless Named is true, anybody may have chosen it.
	Host string
	// Named says that no Pod named the host, but an administrator: as a server, a registry or a
	// token service. The hosts of docker.io count as named.
	Named bool
	// Signed says that the request is to the server of a repository known to be signed.
	Signed bool
	// Result is one of the constants below, or the reason of the fault.
	Result string
	// Sent says that the request was sent.
	Sent bool
	// Took is the time from sending the request to the last byte of the answer, or to the fault.
	Took time.Duration
	// Ended is when the request ended.
	Ended time.Time
}

// Results of an exchange other than the reasons of faults. They follow from the status alone: a
// verified signature is another matter.
const (
	// ResultOK is a status below 400: an answer, or a redirect.
	ResultOK = "ok"
	// ResultNotFound is status 404.
	ResultNotFound = "not_found"
	// ResultChallenged is status 401 of a server to a request without authorization: the first step
	// of every authentication.
	ResultChallenged = "challenged"
	// ResultRateLimited is status 429.
	ResultRateLimited = "rate_limited"
	// ResultPaused says that the request was not sent, because the host had requested a pause.
	ResultPaused = "paused"
	// ResultBusy says that the request was not sent, because too many others were in flight.
	ResultBusy = "busy"
)

// observe reports a request to the observer, if there is one.
func (h *Hosts) observe(target *url.URL, e Exchange) {
	if h.Observer == nil {
		return
	}
	shown := *target
	shown.Host = hostPort(target)
	e.Host, e.Ended = strings.ToValidUTF8(plainHost(&shown), "\ufffd"), h.now()
	h.Observer.Requested(e)
}

// resultOf returns the result of a request that was sent. first says that a 401 is only the first
// step.
func resultOf(resp *http.Response, body []byte, first bool, err error) string {
	if err != nil {
		return trust.AsFault(err, v1alpha1.ReasonUnreachable).Reason
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized && first:
		return ResultChallenged
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return v1alpha1.ReasonUnauthorized
	case code == http.StatusTooManyRequests:
		return ResultRateLimited
	case code >= http.StatusInternalServerError:
		return v1alpha1.ReasonServerError
	case code >= http.StatusMultipleChoices && code < http.StatusBadRequest: // with a web page for browsers
		return ResultOK
	case isHTML(resp, body):
		return v1alpha1.ReasonUnexpectedAnswer
	case code == http.StatusNotFound:
		return ResultNotFound
	case code >= http.StatusBadRequest:
		return v1alpha1.ReasonServerError
	}
	return ResultOK
}

// resultOfUnsent returns the result of a request that Hosts did not admit.
func resultOfUnsent(err error) string {
	if f := trust.AsFault(err, ""); !f.RetryAt.IsZero() {
		return ResultPaused
	}
	return ResultBusy
}
