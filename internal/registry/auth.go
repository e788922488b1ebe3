package registry

import (
	"context"
	"encoding/base64"
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
	maxTokenAnswer   = 64 << 10    // bytes: a token, once more as access_token, and what nobody reads
	maxToken         = 16 << 10    // bytes: it is sent with every request, as a header
	maxRealmHost     = 259         // bytes: a name of DNS and a port
	defaultTokenLife = time.Minute // where the service does not say, by the token specification
	maxTokenLife     = time.Hour
	basicLife        = time.Hour
	tokenMargin      = 10 * time.Second // a token is renewed so long before it expires, or after half its life
)

// held returns the Authorization header that worked for a repository, or nothing.
func (c *Client) held(repository string) string {
	v, ok := c.authorization.Get(repository)
	if !ok {
		return ""
	}
	header, _ := v.(string)
	return header
}

// authorize answers the challenge of a 401 with the value of an Authorization header, and keeps
// that for the repository. sent is what the refused request carried.
func (c *Client) authorize(ctx context.Context, repository, sent string, resp *http.Response) (string, error) {
	if header := c.held(repository); header != "" && header != sent {
		return header, nil // another request has obtained it meanwhile
	}
	c.authorization.Remove(repository)
	offered := challenges(resp.Header)
	for _, ch := range offered {
		if ch.scheme == "bearer" {
			token, life, err := c.token(ctx, repository, ch)
			if err != nil {
				return "", err
			}
			c.authorization.Add(repository, "Bearer "+token, life)
			return "Bearer " + token, nil
		}
	}
	where := place(resp.Request.URL)
	for _, ch := range offered {
		if ch.scheme != "basic" {
			continue
		}
		if !c.hasCredentials() {
			return "", trust.NewFault(v1alpha1.ReasonUnauthorized,
				"%s: the server wants a user name and password; set credentialsSecretRef", where)
		}
		if resp.Request.URL.Scheme != "https" {
			break
		}
		c.authorization.Add(repository, c.basic(), basicLife)
		return c.basic(), nil
	}
	return "", trust.NewFault(v1alpha1.ReasonUnauthorized,
		"%s: the server asks for authentication in a way other than a registry token or a password", where)
}

func (c *Client) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// token asks the token service that a challenge names. The scope is the client's own, whatever the
// challenge says.
func (c *Client) token(ctx context.Context, repository string, ch challenge) (string, time.Duration, error) {
	realm, err := c.realm(ch)
	if err != nil {
		return "", 0, err
	}
	query := realm.Query()
	if service := ch.params["service"]; service != "" {
		query.Set("service", service)
	}
	query.Del("scope")
	if scope := scope(repository); scope != "" {
		query.Set("scope", scope)
	}
	realm.RawQuery = query.Encode()

	header := ""
	if c.hasCredentials() && realm.Scheme == "https" {
		header = c.basic()
	}
	resp, body, err := c.fetch(ctx, realm, header, maxTokenAnswer)
	if err != nil {
		f := trust.AsFault(err, v1alpha1.ReasonUnreachable)
		return "", 0, f.Within("the token service that the server names gave no token: %w", f)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
		return "", 0, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: the token service refused a token (status %d) %s; %s", place(realm), resp.StatusCode, c.identity(),
			c.tokenAdvice(resp.StatusCode))
	default:
		f := trust.NewFault(v1alpha1.ReasonServerError,
			"%s: the token service answered with status %d; look at its log", place(realm), resp.StatusCode)
		return "", 0, c.turnedAway(resp, f)
	}
	token, life, ok := readToken(body)
	if !ok {
		return "", 0, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the token service's answer holds no token of at most %d bytes", place(realm), maxToken)
	}
	return token, life, nil
}

// tokenAdvice says what to do where the token service gives no token.
func (c *Client) tokenAdvice(status int) string {
	switch {
	case status == http.StatusBadRequest:
		return "look at its log, and whether it is the service of this server"
	case !c.hasCredentials():
		return "set credentialsSecretRef"
	case status == http.StatusForbidden:
		return "check what this user may read"
	}
	return "check the user name and the password in the Secret of credentialsSecretRef, and what this user may read"
}

// realm returns the URL of the token service, where it is one that may be asked: on the server's
// own host, or on one that the configuration lists. Whatever it answers is handed to the server as
// an Authorization header, so any other host would let the server read, through the operator, what
// is meant for the inside alone. It must be encrypted unless the server itself is not; there are no
// credentials then.
func (c *Client) realm(ch challenge) (*url.URL, error) {
	realm, err := url.Parse(ch.params["realm"])
	if err != nil || realm.Hostname() == "" || realm.User != nil || len(realm.Host) > maxRealmHost {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: the server names no usable token service",
			place(c.base))
	}
	if realm.Scheme != "https" && (realm.Scheme != "http" || c.base.Scheme != "http") {
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: the server names %s as its token service, which is not encrypted; tokens are asked for over https only",
			place(c.base),
			place(realm))
	}
	if host := hostPort(realm); !c.tokenServices[host] {
		listed := strings.TrimSuffix(host, ":443")
		return nil, trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: the server wants a token of %q, a host other than its own, which was not asked; if it is the right "+
				"token service, list %q in spec.notary.tokenServices",
			place(c.base), listed, listed)
	}
	realm.Host = plainHost(realm)
	return realm, nil
}

// readToken reads the answer of a token service, and how long the token may be kept.
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

// seconds is how long something lasts, as servers write it: a number, or one in quotation marks.
// What cannot be read counts as not said, zero.
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
