package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// checkResponse turns the status of the last response into an error, or nil.
func (c *Client) checkResponse(resp *http.Response, body []byte) error {
	where := shownURL(resp.Request.URL)
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return trust.NewFault(v1alpha1.ReasonUnauthorized,
			"%s: access was refused (status %d) %s; check the credentials and what they may read", where, code,
			c.identity())
	case code == http.StatusTooManyRequests:
		return c.withRetryAt(resp, trust.NewFault(v1alpha1.ReasonServerError,
			"%s: the %s limits the rate of requests (status 429); raise %s, or the limit", where, c.terms.short,
			c.terms.interval))
	case code >= http.StatusInternalServerError:
		return c.withRetryAt(resp,
			trust.NewFault(v1alpha1.ReasonServerError, "%s: the %s failed with status %d; look at its log",
				where, c.terms.short, code))
	case isHTML(resp, body):
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: answered with a web page (status %d), so this is no %s but perhaps a login page or a proxy; "+
				"check %s", where, code, c.terms.server, c.terms.address)
	case code == http.StatusOK:
		return nil
	case code == http.StatusNotFound && protocolError(body) != "":
		return fmt.Errorf("%s: %w", where, &trust.NotFound{Code: protocolError(body)})
	case code == http.StatusNotFound:
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: answered 404 without the error code of a %s, so something else listens there; check %s",
			where, c.terms.server, c.terms.address)
	case code >= http.StatusBadRequest:
		f := trust.NewFault(v1alpha1.ReasonServerError, "%s: the %s refused the request with status %d",
			where, c.terms.short, code)
		f.Refused = true
		return f
	default:
		return trust.NewFault(v1alpha1.ReasonUnexpectedAnswer,
			"%s: answered with status %d, which a %s does not do; check %s", where, code, c.terms.server,
			c.terms.address)
	}
}

// withRetryAt sets on a fault the time of the next request to the host of a response.
func (c *Client) withRetryAt(resp *http.Response, f *trust.Fault) *trust.Fault {
	f.RetryAt = c.hosts.retryAt(hostPort(resp.Request.URL))
	return f
}

// isHTML reports whether a response is a web page, by its type or its first character.
func isHTML(resp *http.Response, body []byte) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (kind == "text/html" || kind == "application/xhtml+xml") ||
		bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}

// protocolError returns the first code in the error format of the distribution protocol, {"errors":
// [{"code": "X"}]}. It is empty if the body has another form, or the code is too long or not
// printable ASCII.
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

// tooLarge returns the fault of a body that exceeds the limit.
func tooLarge(target *url.URL, limit int64) error {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s: the answer has more than the %d bytes that it may have",
		shownURL(target), limit)
}
