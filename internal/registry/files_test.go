package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

func newFiles(t *testing.T, cfg Config) *Files {
	t.Helper()
	f, err := NewFiles(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFiles(t *testing.T) {
	ca := newCA(t)
	for name, tt := range map[string]struct {
		file, kind, body string
		status           int
		reason           string // "missing": ErrNotFound
		words            string
	}{
		"a file":                 {"/1.root.json", "application/json", "{}", 200, "", ""},
		"of any type":            {"/1.root.json", "binary/octet-stream", "{}", 200, "", ""},
		"a target that is XML":   {"/targets/a.xml", "text/xml", "<a/>", 200, "", ""},
		"missing":                {"/1.root.json", "text/plain", "no", 404, "missing", ""},
		"missing, as a web page": {"/1.root.json", "text/html", "<html>", 404, "missing", ""},
		"missing, as XML":        {"/1.root.json", "application/xml", "<Error>", 404, "missing", ""},
		"gone":                   {"/1.root.json", "text/plain", "no", 410, "missing", ""},
		"forbidden": {
			"/1.root.json", "application/xml", "<Error>", 403, v1alpha1.ReasonUnauthorized, "status 403",
		},
		"a web page": {
			"/1.root.json", "text/html", "<html>", 200, v1alpha1.ReasonUnexpectedAnswer, "no TUF repository",
		},
		"a server error":    {"/1.root.json", "text/plain", "no", 503, v1alpha1.ReasonServerError, "503"},
		"too many requests": {"/1.root.json", "text/plain", "no", 429, v1alpha1.ReasonServerError, "429"},
		"no content":        {"/1.root.json", "text/plain", "", 204, v1alpha1.ReasonUnexpectedAnswer, "204"},
		"longer than it may be": {
			"/1.root.json", "application/json", strings.Repeat(" ", 101), 200, v1alpha1.ReasonTooLarge, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, ca, answer(tt.status, tt.kind, tt.body))
			got, err := newFiles(t, Config{Server: server.URL + "/base/", CABundle: string(ca.PEM)}).Get(t.Context(),
				tt.file, 100)
			switch tt.reason {
			case "":
				if err != nil || string(got) != tt.body {
					t.Errorf("got %q and %v, want %q", got, err, tt.body)
				}
			case "missing":
				if !errors.Is(err, trust.ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
			default:
				wantFault(t, err, tt.reason, tt.words)
			}
			if seen := server.seen(); len(seen) != 1 || seen[0].URL.Path != "/base"+tt.file {
				t.Errorf("got requests %v, want one for /base%s", seen, tt.file)
			}
		})
	}
}

func TestFilesAreRequestedAsTheyAreEscaped(t *testing.T) {
	ca := newCA(t)
	server := serve(t, ca, answer(200, "application/json", "{}"))
	f := newFiles(t, Config{Server: server.URL, CABundle: string(ca.PEM)})
	for _, file := range []string{"/1.team%2Fqa.json", "/targets/a%20b/c%3Fd.json", "/a%2520b.json", "/%C3%A9.json"} {
		if _, err := f.Get(t.Context(), file, 100); err != nil {
			t.Fatal(err)
		}
		seen := server.seen()
		if got := seen[len(seen)-1].RequestURI; got != file {
			t.Errorf("got a request for %s, want %s", got, file)
		}
	}
	requests := len(server.seen())
	for _, file := range []string{
		"", "x", "/", "/../x", "/a/../b", "/a//b", "/a/", "/%2E%2E/x", "/..%2Fx", "/a%2F..%2Fb", "/%zz", "/a/.",
		"/a%2F%2Fb",
	} {
		_, err := f.Get(t.Context(), file, 100)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer)
	}
	if got := len(server.seen()); got != requests {
		t.Errorf("got %d requests for paths that lead elsewhere, want none", got-requests)
	}
}

func TestFilesWithAPassword(t *testing.T) {
	ca := newCA(t)
	server := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "reader" || pass != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="files"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte("{}"))
	})
	cfg := Config{Server: server.URL, CABundle: string(ca.PEM)}
	_, err := newFiles(t, cfg).Get(t.Context(), "/timestamp.json", 100)
	wantFault(t, err, v1alpha1.ReasonUnauthorized, "credentialsSecretRef")
	cfg.Username, cfg.Password = "reader", "wrong"
	_, err = newFiles(t, cfg).Get(t.Context(), "/timestamp.json", 100)
	wantFault(t, err, v1alpha1.ReasonUnauthorized, `user "reader"`)
	cfg.Password = password
	if _, err = newFiles(t, cfg).Get(t.Context(), "/timestamp.json", 100); err != nil {
		t.Errorf("got %v, want the file", err)
	}
}
