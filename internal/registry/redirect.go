package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// checkStorage turns the status of a storage host into an error, or nil. Such a host speaks no
// protocol that is known here: any status but 200 is a fault.
func (c *Client) checkStorage(resp *http.Response) error {
	where := shownURL(resp.Request.URL)
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusTooManyRequests || code >= http.StatusInternalServerError:
		return c.withRetryAt(resp, trust.NewFault(v1alpha1.ReasonServerError,
			"%s: the storage host failed with status %d; look at its log", where, code))
	default:
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the storage host answered with status %d; check the registry's storage", where, code)
	}
}

// send sends a request for a part of the repository, and follows redirects to other hosts. by is
// the client of the host that answered: the registry's, or one without credentials.
func (r imageRepository) send(ctx context.Context, wanted request) (by *Client, resp *http.Response, body []byte,
	err error) {
	wanted.elsewhere = true
	by = r.client
	resp, body, err = by.send(ctx, r.path, wanted)
	for hops := 1; err == nil && isRedirect(resp); hops++ {
		by, resp, body, err = r.images.follow(ctx, resp, hops, wanted)
		err = redirected(wanted.target, err)
	}
	return by, resp, body, err
}

// check is checkResponse for a request for a manifest, by the client of the host that answered.
func (r imageRepository) check(wanted request, by *Client, resp *http.Response, body []byte) error {
	err := by.checkResponse(resp, body)
	if by == r.client || errors.Is(err, trust.ErrNotFound) {
		return err
	}
	return redirected(wanted.target, err)
}

// redirected adds to the fault of another host the URL whose registry redirected to it. err may be
// nil.
func redirected(from *url.URL, err error) error {
	if err == nil {
		return nil
	}
	f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
	return f.Within("%s: the registry redirected: %w", shownURL(from), f)
}

// isRedirect reports a response that leads elsewhere.
func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// follow repeats a request at the target of a redirect, without credentials. The certificate of the
// host must chain to the system's CAs, or to the CA bundle of the host if the configuration lists
// it.
func (i *Images) follow(ctx context.Context, resp *http.Response, hops int, wanted request) (*Client, *http.Response,
	[]byte, error) {
	from := resp.Request.URL
	refuse := func(to *url.URL, why string) error {
		return ofRegistry().fault(from, &refusedRedirect{to: shownURL(to), why: why})
	}
	to, err := from.Parse(resp.Header.Get("Location"))
	if err != nil || to.Hostname() == "" {
		return nil, nil, nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: redirected to an invalid URL",
			shownURL(from))
	}
	to.Host = strings.Map(lowerASCII, plainHost(to))
	listed, found := i.listed(to)
	switch {
	case hops > maxRedirects:
		return nil, nil, nil, refuse(to, "there were too many redirects before it")
	case to.User != nil:
		return nil, nil, nil, refuse(to, "it carries credentials")
	}
	base := to.Scheme + "://" + to.Host
	other, err := i.cached(base, Config{
		Server: base, PlainHTTP: listed.PlainHTTP, CABundle: listed.CABundle, unlisted: !found, terms: ofRedirect(),
	})
	if err != nil {
		return nil, nil, nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: redirected to another host: %w",
			shownURL(from), err)
	}
	to.Fragment = ""
	wanted.target = to
	resp, body, err := other.fetch(ctx, wanted, "")
	return other, resp, body, err
}

// listed returns the settings of the host of a URL, however the URL and the settings spell the host
// and the default port.
func (i *Images) listed(u *url.URL) (Config, bool) {
	if cfg, ok := i.cfg.Registries[u.Host]; ok {
		return cfg, true
	}
	cfg, ok := i.cfg.Registries[hostPort(u)]
	return cfg, ok
}
