// Package registry sends GET requests to one signing server or registry, with the token
// authentication of the distribution protocol.
//
// It bounds every response in size and time. It sends requests, with or without credentials, only
// to the server's host and to the configured token services. It never connects to internal
// addresses of a machine or a cloud, such as a metadata service. An error is a *trust.Fault ("could
// not check"), or trust.ErrNotFound if the server returned an error code of its protocol. The
// package never verifies a signature, never trusts a response, and never puts a password or a token
// into an error.
package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// A fetch must succeed in the background even if the server takes 30 seconds for each response.
	// connectTimeout detects a server that is down, and a ping a dead connection.
	defaultTimeout = 45 * time.Second // of one request with its body
	headerTimeout  = 40 * time.Second
	connectTimeout = 5 * time.Second  // and the same again for the TLS handshake
	pingAfter      = 10 * time.Second // without data on a connection in use
	pingTimeout    = 5 * time.Second  // for the answer to a ping
	maxHeader      = 64 << 10
	maxErrorBody   = 64 << 10
	maxErrorCode   = 64 // bytes, because messages show it
	maxRedirects   = 5
	maxConnections = maxRequests // to one host, if each request takes one
	maxIdle        = 16          // connections
	maxTokens      = 2048        // cached, one for each repository
)

// Config describes a server. Server is required.
type Config struct {
	// Server is the base URL, without the /v2 path.
	Server string
	// PlainHTTP accepts an http:// server. New refuses it together with credentials.
	PlainHTTP bool
	// CABundle holds PEM certificates. The TLS certificates of the server and its token services
	// must chain to them. Empty: the system's CAs.
	CABundle string
	// Username and Password are the credentials. Both empty: none.
	Username, Password string
	// ClientCertificate, with its chain, and ClientKey are PEM. The client presents the certificate
	// to the server, if the server requests one, and to no other host. Both empty: none.
	ClientCertificate, ClientKey string
	// TokenServices are hosts, with their port unless it is 443. The client may request tokens from
	// them and from the server, with or without credentials.
	TokenServices []string
	// Timeout bounds one request with its body. The context of Get bounds all its requests
	// together. Zero: 45 seconds.
	Timeout time.Duration
	// Hosts bounds the requests to a host over all clients that share it. Nil: this client has its
	// own.
	Hosts *Hosts
	// Publishes requests tokens that allow to publish, for Post.
	Publishes bool
	// CommandLine makes messages name the flags and files of a user of the command line, instead of
	// the fields of a TrustRoot.
	CommandLine bool

	terms terms // of messages; the zero value: those of a signing server
	// unlisted says that a Pod or a registry named the host, and no administrator.
	unlisted bool
}

// Client sends requests to one server. It is safe for concurrent use. It closes idle connections
// after 90 seconds.
//
// It honours HTTPS_PROXY, HTTP_PROXY and NO_PROXY. It refuses internal addresses for a proxy too,
// and for a server URL with a literal address. If a proxy resolves the server's name, only the
// proxy can check the address.
type Client struct {
	account

	base          *url.URL
	tokenServices map[string]bool // host and port
	http          *http.Client
	redirected    *http.Client // returns the response that redirects to another host
	timeout       time.Duration
	authorization *cache.LRUExpireCache // authorizationKey -> value of the header
	hosts         *Hosts
	named         bool // an administrator named the server
	publishes     bool // tokens allow to publish
	terms         terms
	skipped       []string
	// listsReferrers says that the last list of referrers came from the referrers API. The clients
	// for other accounts share it.
	listsReferrers *atomic.Bool
}

// New returns a client. It does not connect. The error names the invalid setting.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.Server)
	switch {
	case err != nil || base.Hostname() == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("server: %q is not a URL such as https://notary.example.com", redact(cfg.Server))
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("server: %q is neither an https nor an http URL", base)
	case base.Scheme == "http" && !cfg.PlainHTTP:
		return nil, fmt.Errorf("server: %q is not encrypted; use https, or allow plain http explicitly", base)
	case base.Scheme == "http" && (cfg.Username != "" || cfg.Password != "" || cfg.ClientCertificate != ""):
		return nil, fmt.Errorf("server: credentials are sent over https only, and %q is not encrypted", base)
	}
	base.Host = plainHost(base)
	roots, skipped, err := pool(cfg.CABundle)
	if err != nil {
		return nil, err
	}
	certificate, err := parseClientCertificate(cfg.ClientCertificate, cfg.ClientKey)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base: base, account: account{username: cfg.Username, password: cfg.Password}, skipped: skipped,
		tokenServices: map[string]bool{hostPort(base): true},
		timeout:       cmp.Or(cfg.Timeout, defaultTimeout),
		authorization: cache.NewLRUExpireCache(maxTokens),
		hosts:         cfg.Hosts,
		named:         !cfg.unlisted,
		terms:         cmp.Or(cfg.terms, ofSigningServer()),
		publishes:     cfg.Publishes,

		listsReferrers: new(atomic.Bool),
	}
	if cfg.CommandLine {
		c.terms = ofCommandLine()
		if c.hasCredentials() {
			c.source = fmt.Sprintf("the credentials of user %q", cfg.Username)
		}
	}
	if c.hosts == nil {
		c.hosts = NewHosts(time.Now)
	}
	for _, host := range cfg.TokenServices {
		u, err := url.Parse("https://" + host)
		if err != nil || u.Host != host || u.Hostname() == "" {
			return nil, fmt.Errorf("tokenServices: %q is not a host such as auth.example.com or auth.example.com:8443",
				host)
		}
		c.tokenServices[hostPort(u)] = true
	}
	c.http = &http.Client{
		Transport: c.transport(roots, certificate, http.ProxyFromEnvironment), CheckRedirect: checkRedirect,
	}
	c.redirected = &http.Client{Transport: c.http.Transport, CheckRedirect: returnRedirect}
	return c, nil
}

// Skipped returns the certificates of the CA bundle that cannot be used, and why.
func (c *Client) Skipped() []string { return c.skipped }

// pool reads a CA bundle. A nil pool means the system's CAs. skipped names the certificates that
// cannot be used.
func pool(bundle string) (roots *x509.CertPool, skipped []string, err error) {
	if bundle == "" {
		return nil, nil, nil
	}
	b, err := cabundle.Read([]byte(bundle), 0, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("caBundle: %w", err)
	}
	return b.Pool(), b.Skipped, nil
}

// Get returns the body at a path of the server, such as /v2/<repository>/_trust/tuf/root.json. It
// authenticates with a token scoped to pull from repository. An empty repository only checks that
// the server is up and accepts the credentials: the token has no scope, and a 401 with an error
// code of the protocol is no error but the body. A body of more than limit bytes is a fault. The
// error satisfies errors.Is(err, trust.ErrNotFound) if the server answers 404 with an error code of
// its protocol. Otherwise it is a *trust.Fault.
func (c *Client) Get(ctx context.Context, repository, file string, limit int64) ([]byte, error) {
	target, err := c.target(file)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, repository, target, limit)
}

// get is Get for a URL of the server.
func (c *Client) get(ctx context.Context, repository string, target *url.URL, limit int64) ([]byte, error) {
	resp, body, err := c.send(ctx, repository, request{target: target, limit: limit})
	if err != nil {
		return nil, err
	}
	if repository == "" && resp.StatusCode == http.StatusUnauthorized && protocolError(body) != "" &&
		strings.HasPrefix(resp.Request.Header.Get("Authorization"), "Bearer ") {
		return body, nil
	}
	return body, c.checkResponse(resp, body)
}

// request is one request to the server. The zero values of method and accept are GET and JSON.
type request struct {
	target         *url.URL
	method, accept string
	// body is what a POST sends, of the type content.
	body    []byte
	content string
	limit   int64 // of the response's body, in bytes
	// elsewhere returns a response that redirects to another host. By default that is a fault.
	elsewhere bool
	// signed says that the request concerns a repository known to be signed.
	signed bool
	// answers says that the client answers a 401, with authorization.
	answers bool
}

// send sends a request with the authorization for a repository, and answers one challenge. No
// status of the response is an error.
func (c *Client) send(ctx context.Context, repository string, r request) (*http.Response, []byte, error) {
	r.signed, r.answers = repository != "" && trust.PurposeOf(ctx).Known, true
	sent := c.cachedAuthorization(repository)
	resp, body, err := c.fetch(ctx, r, sent)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, body, err
	}
	header, err := c.authorize(ctx, repository, sent, resp)
	if err != nil {
		return nil, nil, err
	}
	resp, body, err = c.fetch(ctx, r, header)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && repository != "" {
		c.authorization.Remove(c.authorizationKey(repository))
	}
	return resp, body, err
}

// target joins the server's URL and a path. The path must be clean, because it can contain names
// from outside.
func (c *Client) target(file string) (*url.URL, error) {
	if !strings.HasPrefix(file, "/") || path.Clean(file) != strings.TrimRight(file, "/") {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%q is not a path that can be requested", file)
	}
	target := *c.base
	target.Path = strings.TrimRight(c.base.Path, "/") + file
	target.RawPath = ""
	return &target, nil
}

// fetch sends one request once the semaphore of its host admits it, and reports the outcome to the
// observer.
func (c *Client) fetch(ctx context.Context, r request, authorization string) (*http.Response, []byte, error) {
	e := Exchange{Named: c.named, Signed: r.signed}
	if err := checkHost(r.target); err != nil {
		e.Result = v1alpha1.ReasonAddressRefused
		c.hosts.observe(r.target, e)
		return nil, nil, c.termsOf(r.target).fault(r.target, err)
	}
	release, err := c.hosts.acquire(ctx, hostPort(r.target))
	if err != nil && errors.Is(context.Cause(ctx), errUnneeded) {
		return nil, nil, err
	}
	if err != nil {
		e.Result = resultOfUnsent(err)
		c.hosts.observe(r.target, e)
		return nil, nil, err
	}
	defer release()
	began := time.Now()
	resp, body, err := c.exchange(ctx, r, authorization)
	if err != nil && errors.Is(context.Cause(ctx), errUnneeded) {
		return nil, nil, err // it says nothing about the host
	}
	e.Sent, e.Took = true, time.Since(began)
	e.Result = resultOf(resp, body, r.answers && authorization == "", err)
	c.hosts.observe(r.target, e)
	return resp, body, err
}

// exchange sends one request and reads the body. It reads up to the limit if the status is 200, and
// up to maxErrorBody otherwise.
func (c *Client) exchange(ctx context.Context, r request, authorization string) (*http.Response, []byte, error) {
	target, limit := r.target, r.limit
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	ctx, certificateRequested := withCertificateRequest(ctx)
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.method, http.MethodGet), target.String(),
		bytes.NewReader(r.body))
	if err != nil {
		return nil, nil, c.termsOf(target).fault(target, err)
	}
	if r.content != "" {
		req.Header.Set("Content-Type", r.content)
	}
	req.Header.Set("User-Agent", "countersign")
	req.Header.Set("Accept", cmp.Or(r.accept, "application/json, */*;q=0.5"))
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	sender := c.http
	if r.elsewhere {
		sender = c.redirected
	}
	resp, err := sender.Do(req)
	if err != nil {
		return nil, nil, c.connectionFault(target, err, certificateRequested.Load())
	}
	defer resp.Body.Close()
	c.hosts.recordPause(hostPort(target), resp)
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		if err != nil {
			return nil, nil, c.termsOf(target).fault(target, err)
		}
		return resp, body, nil
	}
	if resp.ContentLength > limit && req.Method != http.MethodHead {
		return nil, nil, tooLarge(target, limit)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil {
		err = ctx.Err() // after the client gives up, a server can end the body as if it were complete
	}
	if err != nil {
		return nil, nil, c.termsOf(target).fault(target, err)
	}
	if int64(len(body)) > limit {
		return nil, nil, tooLarge(target, limit)
	}
	return resp, body, nil
}
