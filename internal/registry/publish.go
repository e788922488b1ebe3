package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxRefusal bounds the text of a Refusal, in bytes.
const maxRefusal = 500

// Refusal is the error of a server that understood a publication and refuses it.
type Refusal struct {
	// Code is the error code of the protocol, such as INVALID_UPDATE; empty if there is none.
	Code string
	// Name and Detail say more of an INVALID_UPDATE. Detail is also that of another code, if it is
	// a string.
	Name, Detail string
}

func (r *Refusal) Error() string {
	said := strings.Join(strings.FieldsFunc(r.Code+" "+r.Name+" "+r.Detail, func(c rune) bool {
		return !unicode.IsGraphic(c) || c == ' '
	}), " ")
	return "the server refused the publication: " + text.Cut(said, maxRefusal)
}

// Post sends a body to a path of the server, with a token for the repository. It is for a client
// with Config.Publishes. The error is a *Refusal if the server refuses the content, and otherwise a
// *trust.Fault. After a Fault that is no Unauthorized, the server may have accepted the body.
func (c *Client) Post(ctx context.Context, repository, file, content string, body []byte, limit int64) ([]byte, error) {
	target, err := c.target(file)
	if err != nil {
		return nil, err
	}
	resp, answer, err := c.send(ctx, repository, request{
		target: target, method: http.MethodPost, body: body, content: content, limit: limit,
	})
	if err != nil {
		return nil, err
	}
	switch code := protocolError(answer); {
	case resp.StatusCode == http.StatusOK && resp.Request.Method != http.MethodPost:
		return nil, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "%s: redirected the publication; check %s",
			shownURL(target), c.terms.address)
	case resp.StatusCode == http.StatusBadRequest && code != "":
		return nil, readRefusal(code, answer)
	}
	return answer, c.checkResponse(resp, answer)
}

// readRefusal reads the detail of an error: a string, or the name and the description of an error
// in the validation of metadata.
func readRefusal(code string, body []byte) *Refusal {
	r := &Refusal{Code: code}
	var answer struct {
		Errors []struct {
			Detail json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		return r
	}
	detail := bytes.TrimSpace(answer.Errors[0].Detail)
	if json.Unmarshal(detail, &r.Detail) == nil {
		return r
	}
	var invalid struct {
		Name  string          `json:"Name"`
		Error json.RawMessage `json:"Error"`
	}
	_ = json.Unmarshal(detail, &invalid) // without a name, the code remains
	r.Name, r.Detail = invalid.Name, string(invalid.Error)
	var described struct{ Msg string }
	if json.Unmarshal(invalid.Error, &described) == nil && described.Msg != "" {
		r.Detail = described.Msg
	}
	return r
}
