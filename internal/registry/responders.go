package registry

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/lru"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// responderTimeout bounds one request, body included: a certificate may name several servers.
	responderTimeout = 10 * time.Second
	// responderRest is for how long no request goes to a server that could not be queried.
	responderRest = 10 * time.Second
	// maxResponders bounds the servers for which a client is kept.
	maxResponders = 64
)

// Responders sends requests to the servers that certificates name: OCSP responders, and servers of
// CRLs. They are named by CAs that an administrator trusts. It has the same bounds and address
// rules as a Client, and sends no credentials. It accepts http URLs alone: what these servers send
// is signed, and the caller verifies it. It is safe for concurrent use.
//
// A server that could not be queried gets no request for some seconds. Until then its fault is
// returned at once.
type Responders struct {
	hosts   *Hosts
	now     func() time.Time
	timeout time.Duration // of one request, body included

	mu      sync.Mutex
	clients *lru.Cache // host and port -> *responder
}

// responder is the client of one server, and the circuit breaker of it.
type responder struct {
	*Client

	until time.Time // no request is sent before
	fault *trust.Fault
}

// NewResponders returns a client of such servers. Nil hosts: those of this object alone.
func NewResponders(hosts *Hosts, now func() time.Time) *Responders {
	if hosts == nil {
		hosts = NewHosts(now)
	}
	return &Responders{hosts: hosts, now: now, timeout: responderTimeout, clients: lru.New(maxResponders)}
}

// Get returns the body at a URL, of at most limit bytes. The error is a *trust.Fault.
func (r *Responders) Get(ctx context.Context, from string, limit int64) ([]byte, error) {
	return r.exchange(ctx, from, request{accept: "*/*", limit: limit})
}

// Post sends a body of a type to a URL and returns the body of the response, of at most limit
// bytes. The error is a *trust.Fault.
func (r *Responders) Post(ctx context.Context, to, content string, body []byte, limit int64) ([]byte, error) {
	return r.exchange(ctx, to, request{
		method: http.MethodPost, accept: "*/*", content: content, body: body, limit: limit,
	})
}

func (r *Responders) exchange(ctx context.Context, at string, wanted request) ([]byte, error) {
	target, err := url.Parse(at)
	if err != nil || target.Hostname() == "" || target.User != nil || !strings.EqualFold(target.Scheme, "http") {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: a certificate names this URL, which is not an http URL", redact(at))
	}
	target.Scheme, target.Fragment = "http", ""
	target.Host = strings.Map(lowerASCII, plainHost(target))
	wanted.target = target
	to, resting, err := r.responder(target)
	switch {
	case err != nil:
		return nil, err
	case resting != nil:
		return nil, resting
	}
	resp, body, err := to.fetch(ctx, wanted, "")
	if err == nil && resp.StatusCode != http.StatusOK {
		err = to.refusal(resp)
	}
	r.record(target, ctx.Err() == nil, err)
	if err != nil {
		return nil, err
	}
	return body, nil
}

// responder returns the client of a server, and its last fault while no request goes to it.
func (r *Responders) responder(target *url.URL) (to *responder, resting *trust.Fault, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := hostPort(target)
	if found, ok := r.clients.Get(name); ok {
		to = found.(*responder) //nolint:errcheck // the cache holds nothing else
		if r.now().Before(to.until) {
			return to, to.fault, nil
		}
		return to, nil, nil
	}
	client, err := New(Config{
		Server: "http://" + target.Host, PlainHTTP: true, Timeout: r.timeout, Hosts: r.hosts, unlisted: true,
		terms: ofResponder(),
	})
	if err != nil {
		return nil, nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: %w", shownURL(target), err)
	}
	to = &responder{Client: client}
	r.clients.Add(name, to)
	return to, nil, nil
}

// record opens or closes the circuit breaker of a server. A request that its caller gave up says
// nothing about the server.
func (r *Responders) record(target *url.URL, ended bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.clients.Get(hostPort(target))
	if !ok {
		return
	}
	to := found.(*responder) //nolint:errcheck // the cache holds nothing else
	switch f := trust.AsFault(err, v1alpha1.ReasonUnreachable); {
	case err == nil:
		to.until, to.fault = time.Time{}, nil
	case ended && f.Unavailable():
		to.until, to.fault = r.now().Add(responderRest), f
	}
}

// refusal returns the fault of a status other than 200.
func (c *Client) refusal(resp *http.Response) error {
	where, code := shownURL(resp.Request.URL), resp.StatusCode
	if code == http.StatusTooManyRequests || code >= http.StatusInternalServerError {
		return c.withRetryAt(resp, trust.NewFault(v1alpha1.ReasonServerError,
			"%s: the %s failed with status %d; look at its log", where, c.terms.server, code))
	}
	return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
		"%s: answered with status %d, which a %s does not do; check %s", where, code, c.terms.server, c.terms.address)
}
