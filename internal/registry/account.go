package registry

import (
	"encoding/base64"
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/util/cache"
)

// account is the user that a client authenticates as. The zero value is anonymous.
type account struct {
	username, password string
	// source names the pull secret of the account in messages. Empty: it is the account of the
	// Config.
	source string
}

// authorizationKey is the key of a cached Authorization header. It contains the credentials, so
// that no account uses the token of another.
type authorizationKey struct{ host, username, password, repository string }

func (c *Client) authorizationKey(repository string) authorizationKey {
	return authorizationKey{
		host: hostPort(c.base), username: c.username, password: c.password, repository: repository,
	}
}

// as returns a client of the same server that authenticates as another account. It shares the
// connections and the limits of c. It keeps its tokens in cached, and never sends an Authorization
// header to the target of a redirect.
func (c *Client) as(a account, cached *cache.LRUExpireCache) *Client {
	other := *c
	other.account, other.authorization = a, cached
	other.http = withoutAuthorization(c.http)
	other.redirected = withoutAuthorization(c.redirected)
	return &other
}

// withoutAuthorization returns a client that follows the same redirects, without the Authorization
// header.
func withoutAuthorization(c *http.Client) *http.Client {
	return &http.Client{
		Transport: c.Transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			req.Header.Del("Authorization")
			return c.CheckRedirect(req, via)
		},
	}
}

func (a account) hasCredentials() bool { return a.username != "" || a.password != "" }

// basicHeader returns the Authorization header with the password.
func (a account) basicHeader() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(a.username+":"+a.password))
}

// identity returns the user of the requests, without the password. Of a pull secret it returns only
// the name: users who may not read the Secret read messages.
func (a account) identity() string {
	switch {
	case a.source != "":
		return "with " + a.source
	case !a.hasCredentials():
		return "without credentials"
	}
	return fmt.Sprintf("to user %q", a.username)
}

// tokenAdvice returns what the administrator can do if the token service refuses a token.
// setting is the field of the credentials.
func (a account) tokenAdvice(status int, setting string) string {
	switch {
	case status == http.StatusBadRequest:
		return "look at its log, and whether it is the service of this server"
	case a.source != "":
		return "check the user name and the password in it, and what this user may read"
	case !a.hasCredentials():
		return "set " + setting
	case status == http.StatusForbidden:
		return "check what this user may read"
	}
	return "check the user name and the password in the Secret of " + setting + ", and what this user may read"
}
