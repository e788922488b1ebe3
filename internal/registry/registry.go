// Package registry reads from one signing server or registry over HTTP, with the registry token
// flow.
//
// It promises that an answer is bounded in size and time, that nothing is asked, with credentials
// or without, of another host than the server's own and the token services that the configuration
// names, and that an address which belongs to the inside of a machine or a cloud is never connected
// to. Its errors say "could not check" as a *trust.Fault, and trust.ErrNotFound only where the
// server said so in the words of its protocol. It never verifies a signature, never trusts what it
// read, and never puts a password or a token into an error.
package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/cabundle"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// A server that takes 30 seconds for each answer must still load, behind a request that was
	// denied meanwhile. One that is not there shows when it is connected to, and a connection that
	// has died when it is asked for a sign of life.
	defaultTimeout = 45 * time.Second // of one request, its body included
	headerTimeout  = 40 * time.Second
	connectTimeout = 5 * time.Second  // and as much again for TLS
	silence        = 10 * time.Second // on a connection in use, until it is asked for a sign of life
	lifeSign       = 5 * time.Second  // for which it is then waited
	maxHeader      = 64 << 10
	maxErrorBody   = 64 << 10
	maxErrorCode   = 64 // bytes: it is shown in messages
	maxRedirects   = 5
	maxConnections = maxRequests // to one host, where each takes one
	maxIdle        = 16          // connections
	maxTokens      = 2048        // kept, one a repository
)

// Config describes a server. Server is required.
type Config struct {
	// Server is the base URL, without the /v2 path.
	Server string
	// PlainHTTP accepts an http:// server. Credentials are refused together with it.
	PlainHTTP bool
	// CABundle is PEM certificates that TLS certificates must chain to: the server's, and its token
	// service's. Empty: the system's.
	CABundle string
	// Username and Password are the credentials; both empty: none.
	Username, Password string
	// ClientCertificate and ClientKey are the PEM of the certificate, with what it chains through,
	// that is shown to the server where it asks for one, and to no other host. Both empty: none.
	ClientCertificate, ClientKey string
	// TokenServices are hosts, with their port unless it is 443, that a token may be asked of
	// besides the server, with credentials or without.
	TokenServices []string
	// Timeout bounds one request, body included; the context of Get bounds all that it takes. Zero:
	// 45 seconds.
	Timeout time.Duration
	// Hosts bounds what is asked of a host by all clients that have it. Nil: by this client alone.
	Hosts *Hosts
}

// Client reads from one server. It is safe for concurrent use, and holds nothing open for longer
// than 90 seconds after its last use.
//
// HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured. The addresses that are refused are refused for
// a proxy too, and for a server that is given by its address; what a server's name resolves to
// behind a proxy is the proxy's to judge.
type Client struct {
	base          *url.URL
	username      string
	password      string
	tokenServices map[string]bool // host and port
	http          *http.Client
	timeout       time.Duration
	authorization *cache.LRUExpireCache // repository -> value of the header
	hosts         *Hosts
	skipped       []string
}

// New returns a client. It connects to nothing. The error names the setting that cannot be used.
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
	shown, err := clientPair(cfg.ClientCertificate, cfg.ClientKey)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base: base, username: cfg.Username, password: cfg.Password, skipped: skipped,
		tokenServices: map[string]bool{hostPort(base): true},
		timeout:       cmp.Or(cfg.Timeout, defaultTimeout),
		authorization: cache.NewLRUExpireCache(maxTokens),
		hosts:         cfg.Hosts,
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
	c.http = &http.Client{Transport: c.transport(roots, shown, http.ProxyFromEnvironment), CheckRedirect: checkRedirect}
	return c, nil
}

// Skipped says which certificates of the CA bundle cannot be used, and why.
func (c *Client) Skipped() []string { return c.skipped }

// pool reads a bundle; nil stands for the system's. skipped says which of its certificates cannot
// be used.
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

// Get returns the body at a path of the server, such as /v2/<repository>/_trust/tuf/root.json, with
// a token scoped to pull from repository. An empty repository asks whether the server is there and
// takes the credentials: the token then has no scope, and an answer that it opens nothing, in the
// words of the protocol, is the body and no error. A body of more than limit bytes is a fault. The
// error satisfies errors.Is(err, trust.ErrNotFound) where the server says, in the words of its
// protocol, that there is no such thing, and is otherwise a *trust.Fault.
func (c *Client) Get(ctx context.Context, repository, file string, limit int64) ([]byte, error) {
	target, err := c.target(file)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, repository, target, limit)
}

// get is Get of a URL of the server.
func (c *Client) get(ctx context.Context, repository string, target *url.URL, limit int64) ([]byte, error) {
	sent := c.held(repository)
	resp, body, err := c.fetch(ctx, target, sent, limit)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		header, err := c.authorize(ctx, repository, sent, resp)
		if err != nil {
			return nil, err
		}
		if resp, body, err = c.fetch(ctx, target, header, limit); err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized {
			if repository == "" && strings.HasPrefix(header, "Bearer ") && protocolError(body) != "" {
				return body, nil
			}
			c.authorization.Remove(repository)
		}
	}
	return body, c.judge(resp, body)
}

// target joins the server's URL and a path, which must be clean: it may hold names from elsewhere.
func (c *Client) target(file string) (*url.URL, error) {
	if !strings.HasPrefix(file, "/") || path.Clean(file) != strings.TrimRight(file, "/") {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%q is not a path that can be asked for", file)
	}
	target := *c.base
	target.Path = strings.TrimRight(c.base.Path, "/") + file
	target.RawPath = ""
	return &target, nil
}

// fetch sends one GET as soon as its host has a place for it, and reads the body: up to limit where
// the status is 200, and of an error enough to tell it by.
func (c *Client) fetch(ctx context.Context, target *url.URL, authorization string, limit int64) (*http.Response, []byte,
	error) {
	if err := checkHost(target); err != nil {
		return nil, nil, fault(target, err)
	}
	leave, err := c.hosts.enter(ctx, hostPort(target))
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	ctx, asked := watchAsked(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, nil, fault(target, err)
	}
	req.Header.Set("User-Agent", "countersign")
	req.Header.Set("Accept", "application/json, */*;q=0.5")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, c.connectionFault(target, err, asked.Load())
	}
	defer resp.Body.Close()
	c.hosts.heed(hostPort(target), resp)
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		if err != nil {
			return nil, nil, fault(target, err)
		}
		return resp, body, nil
	}
	if resp.ContentLength > limit {
		return nil, nil, tooLarge(target, limit)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil {
		err = ctx.Err() // a server that sees us hang up may end its answer as if it were whole
	}
	if err != nil {
		return nil, nil, fault(target, err)
	}
	if int64(len(body)) > limit {
		return nil, nil, tooLarge(target, limit)
	}
	return resp, body, nil
}

// judge turns the status of a final answer into an error, or nil.
func (c *Client) judge(resp *http.Response, body []byte) error {
	where := place(resp.Request.URL)
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: access was refused (status %d) %s; check the credentials and what they may read", where, code,
			c.identity())
	case code == http.StatusTooManyRequests:
		return c.turnedAway(resp, trust.NewFault(v1alpha1.ReasonServerError,
			"%s: the server turns requests away because there are too many (status 429); raise refreshInterval, or "+
				"the server's limit", where))
	case code >= http.StatusInternalServerError:
		return c.turnedAway(resp,
			trust.NewFault(v1alpha1.ReasonServerError, "%s: the server failed with status %d; look at its log",
				where, code))
	case isHTML(resp, body):
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: answered with a web page (status %d), so this is no signing server but perhaps a login page or a "+
				"proxy; check the server's URL", where, code)
	case code == http.StatusOK:
		return nil
	case code == http.StatusNotFound && protocolError(body) != "":
		return fmt.Errorf("%s: %w", where, &trust.NotFound{Code: protocolError(body)})
	case code == http.StatusNotFound:
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: answered 404, but not in the words of a signing server, so something else listens there; check the "+
				"server's URL", where)
	case code >= http.StatusBadRequest:
		return trust.NewFault(v1alpha1.ReasonServerError, "%s: the server refused the request with status %d",
			where, code)
	default:
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: answered with status %d, which a signing server does not do; check the server's URL", where, code)
	}
}

// turnedAway returns the fault of an answer with the time before which its host is not asked again.
func (c *Client) turnedAway(resp *http.Response, f *trust.Fault) *trust.Fault {
	f.RetryAt = c.hosts.until(hostPort(resp.Request.URL))
	return f
}

// identity says as whom requests are made, without the password.
func (c *Client) identity() string {
	if !c.hasCredentials() {
		return "without credentials"
	}
	return fmt.Sprintf("to user %q", c.username)
}

func (c *Client) hasCredentials() bool { return c.username != "" || c.password != "" }

// isHTML reports a web page, by its type or its first character.
func isHTML(resp *http.Response, body []byte) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (kind == "text/html" || kind == "application/xhtml+xml") ||
		bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}

// protocolError returns the first code in the error format of the distribution protocol,
// {"errors": [{"code": ...}]}: empty where a body is of another form, or the code is no such word.
func protocolError(body []byte) string {
	var answer struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return ""
	}
	code := answer.Errors[0].Code
	if len(code) > maxErrorCode || strings.ContainsFunc(code, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return code
}

func tooLarge(target *url.URL, limit int64) error {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: the answer has more than the %d bytes that it may have",
		place(target), limit)
}
