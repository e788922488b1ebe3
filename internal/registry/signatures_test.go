package registry

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Of the signature extension, only an announced 404 and an empty list say that there are no
// signatures. An entry that cannot be decoded hides none of the others.
func TestThreatSignatureExtension(t *testing.T) {
	ca := newCA(t)
	const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	const unknown = `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`
	announced := http.Header{extensionHeader: {"1"}}
	for name, tt := range map[string]struct {
		status       int
		body         string
		header, base http.Header // of the answer, and of the one at /v2/
		want         [][]byte
		reason       string
	}{
		"signatures": {
			status: 200, body: `{"signatures":[{"schemaVersion":2,"type":"atomic","name":"x","content":"YQ=="},` +
				`{"schemaVersion":2,"type":"other","content":"YQ=="},{"schemaVersion":1,"type":"atomic","content":"YQ=="},` +
				`"x",{"schemaVersion":2,"type":"atomic","content":"!"},{"schemaVersion":2,"type":"atomic","content":"Yg=="}]}`,
			want: [][]byte{[]byte("a"), nil, nil, []byte("b")},
		},
		"none":           {status: 200, body: `{"signatures":[]}`},
		"null":           {status: 200, body: `{"signatures":null}`},
		"another answer": {status: 200, body: `{}`, reason: v1alpha1.ReasonUnexpectedAnswer},
		"no JSON":        {status: 200, body: `x`, reason: v1alpha1.ReasonUnexpectedAnswer},
		"a web page":     {status: 200, body: `<html>`, reason: v1alpha1.ReasonUnexpectedAnswer},
		"too many values": {
			status: 200, body: "[" + strings.Repeat("0,", maxSignatureValues) + "0]",
			reason: v1alpha1.ReasonUnexpectedAnswer,
		},
		"too large": {
			status: 200, body: strings.Repeat(" ", maxSignatureList+1), reason: v1alpha1.ReasonTooLarge,
		},
		"404, announced":             {status: 404, body: unknown, header: announced},
		"404, announced at the base": {status: 404, body: unknown, base: announced},
		"404, not announced":         {status: 404, body: unknown, reason: v1alpha1.ReasonUnexpectedAnswer},
		"403":                        {status: 403, header: announced, reason: v1alpha1.ReasonUnauthorized},
		"500":                        {status: 500, header: announced, reason: v1alpha1.ReasonServerError},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
				header, status, body := tt.header, tt.status, tt.body
				if r.URL.Path == "/v2/" {
					header, status, body = tt.base, http.StatusOK, "{}"
				} else if r.URL.Path != "/extensions/v2/acme/app/signatures/"+digest {
					t.Errorf("got a request for %s", r.URL.Path)
				}
				for key := range header {
					w.Header().Set(key, header.Get(key))
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				w.Write([]byte(body))
			})
			host := strings.TrimPrefix(server.URL, "https://")
			images, err := NewImages(ImagesConfig{Registries: map[string]Config{host: {CABundle: string(ca.PEM)}}})
			if err != nil {
				t.Fatal(err)
			}
			got, err := images.Signatures(t.Context(), host+"/acme/app", digest)
			if tt.reason != "" {
				if err == nil || trust.AsFault(err, "").Reason != tt.reason {
					t.Errorf("got %v, want %s", err, tt.reason)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("got %v and %s", err, diff)
			}
		})
	}
}
