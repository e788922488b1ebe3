package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A registry that lists tags without an end, or sends a page without one, ends the command.
func TestThreatEndlessTagsEndTheCommand(t *testing.T) {
	huge := `{"tags":["` + strings.Repeat("x", maxOfCommand) + `"]}`
	for what, page := range map[string]string{"pages": `{"tags":["v1"]}`, "bytes": huge} {
		t.Run(what, func(t *testing.T) {
			pages := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/tags/list") {
					pages++
					w.Header().Set("Link", fmt.Sprintf(`</v2/acme/app/tags/list?last=%d>; rel="next"`, pages))
					_, _ = w.Write([]byte(page))
				}
			}))
			defer server.Close()
			repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://") + "/acme/app")
			if err != nil {
				t.Fatal(err)
			}
			_, err = remote.List(repository, remote.WithContext(t.Context()),
				remote.WithTransport(LimitTransport(http.DefaultTransport)))
			if err == nil || !strings.Contains(err.Error(), "the registry sends more than 32 MiB") {
				t.Errorf("got %v after %d pages, want an error", err, pages)
			}
		})
	}
}

type countingTransport struct{ requests []string }

func (c *countingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c.requests = append(c.requests, req.URL.String())
	return nil, fmt.Errorf("no server")
}

// A registry with a private address or name is not requested over plain http.
func TestThreatNoPlainHTTPToPrivateHosts(t *testing.T) {
	for _, host := range []string{"10.1.2.3:5000", "192.168.1.1", "registry.local:5000", "registry.example.com"} {
		sent := &countingTransport{}
		repository, err := name.NewRepository(host + "/acme/app")
		if err != nil {
			t.Fatal(err)
		}
		_, err = remote.Get(repository.Tag("v1"), remote.WithContext(t.Context()),
			remote.WithTransport(LimitTransport(sent)))
		if err == nil || len(sent.requests) == 0 {
			t.Errorf("%s: got %v and no request, want one over https", host, err)
		}
		for _, url := range sent.requests {
			if !strings.HasPrefix(url, "https://") {
				t.Errorf("%s: got a request to %s, want https alone", host, url)
			}
		}
	}
}
