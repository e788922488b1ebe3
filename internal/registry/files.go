package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Files fetches files from a plain HTTP server, such as a TUF repository: with the same bounds,
// address rules and credentials as a Client, but without the distribution protocol. It is safe for
// concurrent use.
type Files struct {
	client *Client
	// anonymous says that the operator has no credentials for the server, so that it answers no
	// challenge.
	anonymous bool
}

// NewFiles returns the files of a server, below the URL. It does not connect. The error names the
// invalid setting.
func NewFiles(cfg Config) (*Files, error) {
	cfg.terms = ofFileServer()
	client, err := New(cfg)
	if err != nil {
		return nil, err
	}
	return &Files{client: client}, nil
}

// NewLookaside returns the files of a lookaside server, which stores the signatures of images. It
// is NewFiles, without any credentials.
func NewLookaside(server, caBundle string, hosts *Hosts, timeout time.Duration) (*Files, error) {
	client, err := New(Config{
		Server: server, CABundle: caBundle, Hosts: hosts, Timeout: timeout, terms: ofLookaside(),
	})
	if err != nil {
		return nil, err
	}
	return &Files{client: client, anonymous: true}, nil
}

func ofFileServer() terms {
	return terms{
		server: "TUF repository", short: "server", address: "the server's URL", interval: "refreshInterval",
		scheme: "the port and the scheme of the server's URL", tokenServices: "tokenServices",
	}
}

func ofLookaside() terms {
	return terms{
		server: "lookaside server", short: "lookaside server", address: "spec.simpleSigning.lookaside",
		interval: "refreshInterval", scheme: "the port in spec.simpleSigning.lookaside",
		bundle: "spec.simpleSigning.lookasideCABundle",
	}
}

// Skipped returns the certificates of the CA bundle that cannot be used, and why.
func (f *Files) Skipped() []string { return f.client.Skipped() }

// Get returns the file at an escaped path below the server's URL, such as /1.root.json. A file of
// more than limit bytes is a fault. The error satisfies errors.Is(err, trust.ErrNotFound) if the
// server answers 404 or 410: there is no error code that tells a missing file from a wrong URL.
// Otherwise it is a *trust.Fault; of a 403, which storage services answer for a missing file, it
// has the reason Unauthorized.
func (f *Files) Get(ctx context.Context, file string, limit int64) ([]byte, error) {
	target, err := f.target(file)
	if err != nil {
		return nil, err
	}
	resp, body, err := f.send(ctx, request{target: target, limit: limit, accept: "*/*"})
	if err != nil {
		return nil, err
	}
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		return nil, fmt.Errorf("%s: %w", shownURL(target), &trust.NotFound{Code: strconv.Itoa(code)})
	case f.anonymous && (code == http.StatusUnauthorized || code == http.StatusForbidden):
		return nil, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: access was refused (status %d); the operator reads a %s without credentials", shownURL(target), code,
			f.client.terms.server)
	case code == http.StatusOK && !strings.HasSuffix(file, ".json"):
		return body, nil
	}
	return body, f.client.checkResponse(resp, body)
}

// Probe checks that the server answers at all: a plain file server need not have anything at its
// URL. The error is a *trust.Fault.
func (f *Files) Probe(ctx context.Context) error {
	target := *f.client.base
	resp, body, err := f.send(ctx, request{target: &target, method: http.MethodHead, accept: "*/*"})
	if err != nil {
		return err
	}
	if code := resp.StatusCode; code == http.StatusTooManyRequests || code >= http.StatusInternalServerError {
		return f.client.checkResponse(resp, body)
	}
	return nil
}

func (f *Files) send(ctx context.Context, r request) (*http.Response, []byte, error) {
	if f.anonymous {
		return f.client.fetch(ctx, r, "")
	}
	return f.client.send(ctx, "", r)
}

// target joins the server's URL and an escaped path, of which no element may be empty or of dots.
func (f *Files) target(file string) (*url.URL, error) {
	plain, err := url.PathUnescape(file)
	if err != nil || !strings.HasPrefix(file, "/") || plain == "/" || path.Clean(plain) != plain {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%q is not a path that can be requested", file)
	}
	target := *f.client.base
	target.RawPath = strings.TrimRight(f.client.base.EscapedPath(), "/") + file
	target.Path = strings.TrimRight(f.client.base.Path, "/") + plain
	return &target, nil
}
