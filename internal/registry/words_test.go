package registry

import (
	"net/http"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// A message about an image registry calls it that, and names the settings of registries.
func TestMessagesAboutRegistries(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	challenge := func(value string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", value)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	tests := map[string]struct {
		handler http.HandlerFunc
		ca      *tlstest.CA
		closed  bool
		says    string
	}{
		"another CA": {ca: other, says: "put the certificate of the CA that issued it into spec.registries[].caBundle"},
		"password": {
			handler: challenge(`Basic realm="r"`),
			says:    "the registry wants a user name and password; set spec.registries[].credentialsSecretRef",
		},
		"another way": {handler: challenge("Negotiate"), says: "the registry asks for authentication in a way other"},
		"no realm":    {handler: challenge("Bearer x=y"), says: "the registry names no usable token service"},
		"plain tokens": {
			handler: challenge(`Bearer realm="http://localhost/"`), says: `the registry names http://localhost/`,
		},
		"token host": {
			handler: challenge(`Bearer realm="https://auth.example.com/"`),
			says:    `list "auth.example.com" in spec.registries[].tokenServices`,
		},
		"429": {
			handler: answer(429, "", ""),
			says:    "the registry limits the rate of requests (status 429); raise resolveInterval",
		},
		"503":     {handler: answer(503, "", ""), says: "the registry failed with status 503"},
		"418":     {handler: answer(418, "", ""), says: "the registry refused the request with status 418"},
		"404":     {handler: answer(404, "", ""), says: "without the error code of a registry"},
		"refused": {closed: true, says: "is the registry running"},
		"broken": {
			handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			says:    "the registry closed the connection",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := serve(t, ca, test.handler)
			if test.closed {
				server.Close()
			}
			trusted := ca
			if test.ca != nil {
				trusted = test.ca
			}
			images := newImages(t, map[string]Config{server.Host: {CABundle: string(trusted.PEM)}})
			_, err := images.Resolve(t.Context(), server.Host+"/acme/app", "v1")
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), server.Host) {
				t.Fatalf("got %v, want %q and %s in it", err, test.says, server.Host)
			}
			if strings.Contains(err.Error(), "server") {
				t.Errorf("got %v, want no word of a server in it", err)
			}
		})
	}
}

// A fault of a token service names the registry too: several may have the same token service.
func TestTokenServiceOfARegistry(t *testing.T) {
	ca := newCA(t)
	for status, says := range map[int]string{
		http.StatusServiceUnavailable: "answered with status 503",
		http.StatusForbidden:          "refused a token (status 403)",
		http.StatusOK:                 "holds no token",
		0:                             "the token service closed the connection",
	} {
		service := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
			if status == 0 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(status)
		})
		server := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+service.URL+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
		images := newImages(t, map[string]Config{server.Host: {
			CABundle: string(ca.PEM), TokenServices: []string{service.Host},
		}})
		_, err := images.Resolve(t.Context(), server.Host+"/acme/app", "v1")
		for _, word := range []string{says, server.Host, service.Host, "token service of the registry"} {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("status %d: got %v, want %q in it", status, err, word)
			}
		}
	}
}
