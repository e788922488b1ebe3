package registry

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	maxTokenAnswer   = 64 << 10    // bytes: token, access_token and unused members
	maxToken         = 16 << 10    // bytes: every request sends it in a header
	maxRealmHost     = 259         // bytes: a DNS name and a port
	defaultTokenLife = time.Minute // without expires_in, by the token specification
	maxTokenLife     = time.Hour
	basicLife        = time.Hour
	tokenMargin      = 10 * time.Second // renewal before expiry, but not before half of the lifetime
)

// cachedAuthorization returns the cached Authorization header of a repository, or an empty string.
func (c *Client) cachedAuthorization(repository string) string {
	v, ok := c.authorization.Get(c.authorizationKey(repository))
	if !ok {
		return ""
	}
	header, _ := v.(string)
	return header
}

// authorize returns the Authorization header that answers the challenge of a 401, and caches it for
// the repository. sent is the header of the refused request.
func (c *Client) authorize(ctx context.Context, repository, sent string, resp *http.Response) (string, error) {
	if header := c.cachedAuthorization(repository); header != "" && header != sent {
		return header, nil // a concurrent request has obtained it
	}
	c.authorization.Remove(c.authorizationKey(repository))
	offered := challenges(resp.Header)
	for _, ch := range offered {
		if ch.scheme == "bearer" {
			token, life, err := c.fetchToken(ctx, repository, ch)
			if err != nil {
				return "", err
			}
			c.authorization.Add(c.authorizationKey(repository), "Bearer "+token, life)
			return "Bearer " + token, nil
		}
	}
	where := shownURL(resp.Request.URL)
	for _, ch := range offered {
		if ch.scheme != "basic" {
			continue
		}
		if !c.hasCredentials() {
			return "", trust.NewFault(v1alpha1.ReasonUnauthorized,
				"%s: the %s wants a user name and password; set %s", where, c.terms.short,
				c.terms.setting("credentialsSecretRef"))
		}
		if resp.Request.URL.Scheme != "https" {
			break
		}
		c.authorization.Add(c.authorizationKey(repository), c.basicHeader(), basicLife)
		return c.basicHeader(), nil
	}
	return "", trust.NewFault(v1alpha1.ReasonUnauthorized,
		"%s: the %s asks for authentication in a way other than a registry token or a password", where, c.terms.short)
}

// fetchToken requests a token from the token service of a challenge. The scope is the client's own,
// whatever the challenge says. A fault names the server too: several may have one token service.
func (c *Client) fetchToken(ctx context.Context, repository string, ch challenge) (string, time.Duration, error) {
	realm, err := c.tokenServiceURL(ch)
	if err != nil {
		return "", 0, err
	}
	token, life, err := c.requestToken(ctx, repository, realm, ch.params["service"])
	if err != nil {
		f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
		return "", 0, f.Within("%s: the token service of the %s gave no token: %w", shownURL(c.base), c.terms.short, f)
	}
	return token, life, nil
}

// requestToken requests a token for a repository.
func (c *Client) requestToken(ctx context.Context, repository string, realm *url.URL,
	service string) (string, time.Duration, error) {
	query := realm.Query()
	if service != "" {
		query.Set("service", service)
	}
	query.Del("scope")
	if scope := scope(repository); scope != "" {
		if c.publishes {
			scope += ",push"
		}
		query.Set("scope", scope)
	}
	realm.RawQuery = query.Encode()

	header := ""
	if c.hasCredentials() && realm.Scheme == "https" {
		header = c.basicHeader()
	}
	resp, body, err := c.fetch(ctx, request{target: realm, limit: maxTokenAnswer}, header)
	if err != nil {
		return "", 0, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
		return "", 0, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: the token service refused a token (status %d) %s; %s", shownURL(realm), resp.StatusCode, c.identity(),
			c.tokenAdvice(resp.StatusCode, c.terms.setting("credentialsSecretRef")))
	default:
		f := trust.NewFault(v1alpha1.ReasonServerError,
			"%s: the token service answered with status %d; look at its log", shownURL(realm), resp.StatusCode)
		f.Refused = resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests
		return "", 0, c.withRetryAt(resp, f)
	}
	token, life, ok := readToken(body)
	if !ok {
		return "", 0, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the token service's answer holds no token of at most %d bytes", shownURL(realm), maxToken)
	}
	return token, life, nil
}

// tokenServiceURL returns the URL of the token service. It must be on the server's host or on a
// configured one. The client sends the token to the server, so with any other host a server could
// read responses of internal hosts through the operator. The URL must be https, unless the server
// itself is http; there are no credentials then.
func (c *Client) tokenServiceURL(ch challenge) (*url.URL, error) {
	realm, err := url.Parse(ch.params["realm"])
	if err != nil || realm.Hostname() == "" || realm.User != nil || len(realm.Host) > maxRealmHost {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the %s names no usable token service",
			shownURL(c.base), c.terms.short)
	}
	if realm.Scheme != "https" && (realm.Scheme != "http" || c.base.Scheme != "http") {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the %s names %s as its token service, which is not encrypted; tokens are requested over https only",
			shownURL(c.base), c.terms.short, shownURL(realm))
	}
	if host := hostPort(realm); !c.tokenServices[host] {
		listed := strings.TrimSuffix(host, ":443")
		return nil, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: the %s names %q, another host than its own, as its token service, so no token was requested; "+
				"if it is the right token service, list %q in %s",
			shownURL(c.base), c.terms.short, listed, listed, c.terms.tokenServices)
	}
	realm.Host = plainHost(realm)
	return realm, nil
}

// readToken reads the response of a token service: the token, and how long it may be cached.
func readToken(body []byte) (token string, life time.Duration, ok bool) {
	var answer struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   seconds `json:"expires_in"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return "", 0, false
	}
	token = answer.Token
	if token == "" {
		token = answer.AccessToken
	}
	if token == "" || len(token) > maxToken ||
		strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", 0, false
	}
	life = defaultTokenLife
	if answer.ExpiresIn > 0 {
		life = time.Duration(float64(min(answer.ExpiresIn, seconds(maxTokenLife/time.Second))) * float64(time.Second))
	}
	return token, max(life-tokenMargin, life/2), true
}

// seconds is a duration in JSON: a number, or a number in quotation marks. Anything else is zero.
type seconds float64

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(raw []byte) error {
	n, err := strconv.ParseFloat(strings.TrimSpace(strings.Trim(string(raw), `"`)), 64)
	if err != nil || n != n {
		n = 0
	}
	*s = seconds(n)
	return nil
}
