package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	aManifest   = `{"schemaVersion":2}`
	unknownCode = `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`
)

// imagesOf returns a reader of a registry, and the name of a repository in it.
func imagesOf(t *testing.T, ca *tlstest.CA, server *recorder) (images *Images, repository string) {
	t.Helper()
	return newImages(t, map[string]Config{server.Host: {CABundle: string(ca.PEM)}}), server.Host + "/acme/app"
}

// methods returns the methods and paths of the requests so far.
func (r *recorder) methods() []string {
	var all []string
	for _, req := range r.seen() {
		all = append(all, req.Method+" "+req.URL.RequestURI())
	}
	return all
}

func TestResolve(t *testing.T) {
	digest := digestOf([]byte(aManifest))
	serveManifest := func(w http.ResponseWriter, named string) {
		if named != "" {
			w.Header().Set("Docker-Content-Digest", named)
		}
		w.Header().Set("Content-Type", manifestMediaType)
		_, _ = w.Write([]byte(aManifest))
	}
	tests := map[string]struct {
		head, get http.HandlerFunc
		want      string // a digest
		missing   bool
		fault     string
		requests  int
	}{
		"by HEAD": {
			head: func(w http.ResponseWriter, _ *http.Request) { serveManifest(w, digest) }, want: digest, requests: 1,
		},
		"HEAD is not served": {
			head: answer(http.StatusMethodNotAllowed, "text/plain", ""),
			get:  func(w http.ResponseWriter, _ *http.Request) { serveManifest(w, digest) }, want: digest, requests: 2,
		},
		"no digest is named": {
			head: func(w http.ResponseWriter, _ *http.Request) { serveManifest(w, "") },
			get:  func(w http.ResponseWriter, _ *http.Request) { serveManifest(w, "") }, want: digest, requests: 2,
		},
		"a digest of another algorithm is named": {
			head: func(w http.ResponseWriter, _ *http.Request) { serveManifest(w, "sha512:"+strings.Repeat("0", 128)) },
			get:  func(w http.ResponseWriter, _ *http.Request) { serveManifest(w, "sha512:"+strings.Repeat("0", 128)) },
			want: digest, requests: 2,
		},
		"the manifest does not hash to its digest": {
			head: answer(http.StatusMethodNotAllowed, "text/plain", ""),
			get: func(w http.ResponseWriter, _ *http.Request) {
				serveManifest(w, "sha256:"+strings.Repeat("0", 64))
			},
			fault: v1alpha1.ReasonUnexpectedAnswer, requests: 2,
		},
		"no such tag": {
			head: answer(http.StatusNotFound, "application/json", ""),
			get:  answer(http.StatusNotFound, "application/json", unknownCode), missing: true, requests: 2,
		},
		"no such tag, though a digest is named": {
			head: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Docker-Content-Digest", digest)
				w.WriteHeader(http.StatusNotFound)
			},
			get: answer(http.StatusNotFound, "application/json", unknownCode), missing: true, requests: 2,
		},
		"a proxy's page is no answer": {
			head:  answer(http.StatusNotFound, "text/html", ""),
			get:   answer(http.StatusNotFound, "text/html", "<html>"),
			fault: v1alpha1.ReasonUnexpectedAnswer, requests: 2,
		},
		"no JSON": {
			head:  answer(http.StatusMethodNotAllowed, "text/plain", ""),
			get:   answer(http.StatusOK, manifestMediaType, aManifest[:len(aManifest)-1]),
			fault: v1alpha1.ReasonUnexpectedAnswer, requests: 2,
		},
		"access is refused": {
			head: answer(http.StatusForbidden, "application/json", ""), fault: v1alpha1.ReasonUnauthorized, requests: 1,
		},
		"too many requests": {
			head:  answer(http.StatusTooManyRequests, "application/json", ""),
			fault: v1alpha1.ReasonServerError, requests: 1,
		},
		"the registry fails": {
			head:  answer(http.StatusInternalServerError, "application/json", ""),
			get:   answer(http.StatusInternalServerError, "application/json", ""),
			fault: v1alpha1.ReasonServerError, requests: 2,
		},
		"a manifest of more than 4 MiB": {
			head: answer(http.StatusMethodNotAllowed, "text/plain", ""),
			get: answer(http.StatusOK, manifestMediaType,
				`{"a":"`+strings.Repeat("a", MaxManifest)+`"}`),
			fault: v1alpha1.ReasonTooLarge, requests: 2,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			server := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					test.head(w, r)
					return
				}
				test.get(w, r)
			})
			images, repository := imagesOf(t, ca, server)
			got, err := images.Resolve(t.Context(), repository, "v1")
			switch {
			case test.missing && !errors.Is(err, trust.ErrNotFound):
				t.Errorf("got %q, %v, want ErrNotFound", got, err)
			case test.fault != "":
				wantFault(t, err, test.fault)
			case !test.missing && (err != nil || got != test.want):
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
			if got := server.methods(); len(got) != test.requests {
				t.Errorf("got requests %q, want %d", got, test.requests)
			}
		})
	}
}

// TestThreatManifestOfAnotherHash serves, for a digest, bytes that do not hash to it.
func TestThreatManifestOfAnotherHash(t *testing.T) {
	digest := digestOf([]byte(aManifest))
	for name, body := range map[string]string{
		"another manifest": `{"schemaVersion":3}`, "a space more": aManifest + " ", "cut off": aManifest[:5],
		"empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			images, repository := imagesOf(t, ca, serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", manifestMediaType)
				w.Header().Set("Docker-Content-Digest", digest)
				_, _ = w.Write([]byte(body))
			}))
			_, err := images.Manifest(t.Context(), repository, digest, MaxManifest)
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "hashes to")
			_, err = images.Blob(t.Context(), repository, digest, 1<<10)
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "hashes to")

			silent, repository := imagesOf(t, ca, serve(t, ca, answer(http.StatusOK, manifestMediaType, body)))
			_, err = silent.Manifest(t.Context(), repository, digest, MaxManifest)
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "hashes to")
		})
	}
}

// indexOf returns an index of referrers with these digests.
func indexOf(t *testing.T, digests ...string) string {
	t.Helper()
	list := []Descriptor{}
	for _, d := range digests {
		list = append(list, Descriptor{MediaType: manifestMediaType, Digest: d, ArtifactType: signatureType})
	}
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": list})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func numbered(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func TestReferrers(t *testing.T) {
	const ofAPI, ofTag = "/v2/acme/app/referrers/", "/v2/acme/app/manifests/sha256-"
	subject := numbered(7)
	page := func(next, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if next != "" {
				w.Header().Set("Link", next)
			}
			w.Header().Set("Content-Type", indexMediaType)
			_, _ = w.Write([]byte(body))
		}
	}
	many := make([]string, maxReferrers+1)
	for i := range many {
		many[i] = numbered(i)
	}
	tests := map[string]struct {
		api, tag http.HandlerFunc
		second   http.HandlerFunc // the next page
		want     int
		fault    string
		words    string
	}{
		"one page": {api: page("", indexOf(t, numbered(1), numbered(2))), want: 2},
		"two pages": {
			api:    page(`<`+ofAPI+subject+`?n=1,2&last=a>; rel="next"`, indexOf(t, numbered(1))),
			second: page("", indexOf(t, numbered(2))), want: 2,
		},
		"a link of another relation": {api: page(`</elsewhere>; rel="describedby"`, indexOf(t, numbered(1))), want: 1},
		"none":                       {api: page("", indexOf(t)), want: 0},
		"the tag schema": {
			api: answer(http.StatusNotFound, "text/plain", "404 page not found"),
			tag: page("", indexOf(t, numbered(1))), want: 1,
		},
		"the tag schema after 405": {
			api: answer(http.StatusMethodNotAllowed, "text/plain", ""), tag: page("", indexOf(t, numbered(1))), want: 1,
		},
		"neither API nor tag": {
			api: answer(http.StatusNotFound, "text/plain", ""),
			tag: answer(http.StatusNotFound, "application/json", unknownCode), want: 0,
		},
		"the tag behind a proxy's page": {
			api:   answer(http.StatusNotFound, "text/html", "<html>"),
			tag:   answer(http.StatusNotFound, "text/html", "<html>"),
			fault: v1alpha1.ReasonUnexpectedAnswer,
		},
		"access is refused": {
			api: answer(http.StatusForbidden, "application/json", ""), fault: v1alpha1.ReasonUnauthorized,
		},
		"the API fails": {
			api: answer(http.StatusInternalServerError, "application/json", ""), fault: v1alpha1.ReasonServerError,
		},
		"a descriptor without a digest": {api: page("", indexOf(t, "", "sha256:1", numbered(1))), want: 1},
		"no index": {
			api: page("", `{"schemaVersion":1}`), fault: v1alpha1.ReasonUnexpectedAnswer, words: "no image index",
		},
		"no JSON":  {api: page("", `schemaVersion`), fault: v1alpha1.ReasonUnexpectedAnswer},
		"too many": {api: page("", indexOf(t, many...)), fault: v1alpha1.ReasonTooLarge},
		"too many by the tag schema": {
			api: answer(http.StatusNotFound, "text/plain", ""), tag: page("", indexOf(t, many...)),
			fault: v1alpha1.ReasonTooLarge,
		},
		"too large": {
			api:   page("", `{"schemaVersion":2,"a":"`+strings.Repeat("a", maxReferrerBytes)+`"}`),
			fault: v1alpha1.ReasonTooLarge,
		},
		"too many values": {
			api:   page("", `{"schemaVersion":2,"a":[`+strings.Repeat("0,", maxIndexValues)+`0]}`),
			fault: v1alpha1.ReasonUnexpectedAnswer, words: "values",
		},
		"pages without end": {
			api:    page(`<?page=next>; rel=next`, indexOf(t)),
			second: page(`<?page=next>; rel=next`, indexOf(t)), fault: v1alpha1.ReasonTooLarge, words: "pages",
		},
		"pages that grow without end": {
			api:    page(`<?page=next>; rel=next`, indexOf(t, many[:maxReferrers/2]...)),
			second: page(`<?page=next>; rel=next`, indexOf(t, many[:maxReferrers/2]...)),
			fault:  v1alpha1.ReasonTooLarge,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			images, repository := imagesOf(t, ca, serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, ofTag) && test.tag != nil:
					test.tag(w, r)
				case strings.HasPrefix(r.URL.Path, ofAPI) && r.URL.RawQuery != "" && test.second != nil:
					test.second(w, r)
				case strings.HasPrefix(r.URL.Path, ofAPI):
					test.api(w, r)
				case strings.HasPrefix(r.URL.Path, ofTag): // requested at once
					http.NotFound(w, r)
				default:
					t.Errorf("unexpected request %s", r.URL)
				}
			}))
			got, err := images.Referrers(t.Context(), repository, subject, "")
			if test.fault != "" {
				wantFault(t, err, test.fault, test.words)
				return
			}
			if err != nil || len(got) != test.want {
				t.Errorf("got %d referrers, %v, want %d", len(got), err, test.want)
			}
		})
	}
}

// TestReferrersWithinTheBudget checks that a list of referrers is decoded only within the memory
// budget, and that its cost is released afterwards.
func TestReferrersWithinTheBudget(t *testing.T) {
	ca := newCA(t)
	list := indexOf(t, numbered(1))
	images, repository := imagesOf(t, ca, serve(t, ca, answer(http.StatusOK, indexMediaType, list)))
	cost := int64(decodedCost * len(list))
	images.cfg.Budget = budget.New(cost)
	for range 2 {
		if got, err := images.Referrers(t.Context(), repository, numbered(7), ""); err != nil || len(got) != 1 {
			t.Fatalf("got %d referrers, %v, want 1", len(got), err)
		}
	}
	images.cfg.Budget = budget.New(cost - 1)
	if got, err := images.Referrers(t.Context(), repository, numbered(7), ""); err == nil ||
		!strings.Contains(err.Error(), "decoding it takes up to") {
		t.Errorf("got %d referrers, %v, want none: they exceed the budget", len(got), err)
	}
}

func TestReferrersOfOneType(t *testing.T) {
	ca := newCA(t)
	server := serve(t, ca, answer(http.StatusOK, indexMediaType, `{"schemaVersion":2,"manifests":[
		{"digest":"`+numbered(1)+`","artifactType":"a"},
		{"digest":"`+numbered(2)+`","artifactType":"b"},
		{"digest":"`+numbered(3)+`"}]}`))
	images, repository := imagesOf(t, ca, server)
	got, err := images.Referrers(t.Context(), repository, numbered(7), "a")
	if err != nil || len(got) != 2 || got[0].Digest != numbered(1) || got[1].Digest != numbered(3) {
		t.Errorf("got %v, %v, want the first and the last", got, err)
	}
	if !slices.Contains(server.methods(), "GET /v2/acme/app/referrers/"+numbered(7)+"?artifactType=a") {
		t.Errorf("got requests %q, want one with the type a", server.methods())
	}
}

// TestThreatNextPageElsewhere has a registry name a next page of its list that is not its own to
// give: at another host, in another repository, outside of the list.
func TestThreatNextPageElsewhere(t *testing.T) {
	ca := newCA(t)
	inside := serve(t, ca, answer(http.StatusOK, indexMediaType, indexOf(t, numbered(1))))
	for name, link := range map[string]string{
		"another host":       "https://" + inside.Host + "/v2/acme/app/referrers/" + numbered(7) + "?n=2",
		"plain http":         "http://SERVER/v2/acme/app/referrers/" + numbered(7) + "?n=2",
		"another repository": "/v2/acme/other/referrers/" + numbered(7) + "?n=2",
		"dots":               "/v2/acme/app/referrers/../../other/tags/list",
		"encoded dots":       "/v2/acme/app/referrers/%2e%2e/%2e%2e/other/tags/list",
		"another endpoint":   "/v2/acme/app/manifests/v1",
		"credentials":        "https://user:secret@SERVER/v2/acme/app/referrers/" + numbered(7),
	} {
		t.Run(name, func(t *testing.T) {
			var server *recorder
			server = serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Link", "<"+strings.ReplaceAll(link, "SERVER", server.Host)+`>; rel="next"`)
				_, _ = w.Write([]byte(indexOf(t, numbered(1))))
			})
			images, repository := imagesOf(t, ca, server)
			_, err := images.Referrers(t.Context(), repository, numbered(7), "")
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "not fetched")
			got := slices.DeleteFunc(server.methods(), func(r string) bool { return r == tagRequest })
			if len(got) != 1 {
				t.Errorf("got requests %q, want one", got)
			}
		})
	}
	if got := inside.methods(); len(got) != 0 {
		t.Errorf("the other host got requests %q, want none", got)
	}
}

// TestThreatStorageRedirect has a registry redirect a blob to where it must not be fetched, or must
// be fetched without the registry's credentials.
func TestThreatStorageRedirect(t *testing.T) {
	ca, content := newCA(t), []byte("content")
	var storage *recorder
	further := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://"+storage.Host+r.URL.Path, http.StatusFound)
	})
	storage = serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "https://"+r.Host+"/loop?again", http.StatusFound)
			return
		case r.URL.Path == "/hosts" && len(further.seen()) < 20:
			http.Redirect(w, r, "https://"+further.Host+"/hosts", http.StatusFound)
			return
		}
		_, _ = w.Write(content)
	})
	plain := servePlain(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	tests := map[string]struct {
		to     string
		listed bool // whether the storage host is in the configuration
		fault  string
		words  string
	}{
		"listed":        {to: "https://" + storage.Host + "/blob?signature=issued-token", listed: true},
		"of another CA": {to: "https://" + storage.Host + "/blob", fault: v1alpha1.ReasonTLSNotTrusted},
		"plain http":    {to: plain.URL + "/blob", fault: v1alpha1.ReasonUnexpectedAnswer, words: "not encrypted"},
		"metadata service": {
			to: "https://169.254.169.254/latest", fault: v1alpha1.ReasonAddressRefused,
		},
		"another scheme": {to: "ftp://" + storage.Host + "/blob", fault: v1alpha1.ReasonUnexpectedAnswer},
		"credentials": {
			to: "https://user:" + password + "@" + storage.Host + "/blob", listed: true,
			fault: v1alpha1.ReasonUnexpectedAnswer, words: "credentials",
		},
		"without end": {
			to: "https://" + storage.Host + "/loop", listed: true, fault: v1alpha1.ReasonUnexpectedAnswer,
			words: "too many redirects",
		},
		"from host to host": {
			to: "https://" + storage.Host + "/hosts", listed: true, fault: v1alpha1.ReasonUnexpectedAnswer,
			words: "too many redirects",
		},
		"no URL": {to: "https://%zz/", fault: v1alpha1.ReasonUnreachable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := len(storage.seen())
			server := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
				if _, _, ok := r.BasicAuth(); !ok {
					w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				w.Header().Set("Location", test.to)
				w.WriteHeader(http.StatusTemporaryRedirect)
			})
			registries := map[string]Config{
				server.Host: {CABundle: string(ca.PEM), Username: "reader", Password: password},
			}
			if test.listed { // with credentials of its own, which are not for a redirect either
				registries[storage.Host] = Config{CABundle: string(ca.PEM), Username: "reader", Password: password}
				registries[further.Host] = Config{CABundle: string(ca.PEM)}
			}
			body, err := newImages(t, registries).Blob(t.Context(), server.Host+"/acme/app", digestOf(content), 1<<10)
			if test.fault != "" {
				wantFault(t, err, test.fault, test.words, server.Host)
			} else if err != nil || string(body) != string(content) {
				t.Errorf("got %q, %v, want %q", body, err, content)
			}
			for _, req := range storage.seen()[before:] {
				if got := req.Header.Get("Authorization"); got != "" {
					t.Errorf("the storage host got the Authorization header %q", got)
				}
			}
		})
	}
	if got := plain.methods(); len(got) != 0 {
		t.Errorf("the host without TLS got requests %q, want none", got)
	}
}

// A registry that spells the storage host of another registry in its own way redirects to the same
// host: the other registry keeps reaching it with its CA.
func TestThreatStorageHostInAnotherSpelling(t *testing.T) {
	images := newImages(t, map[string]Config{"storage.example.com": {CABundle: string(newCA(t).PEM)}})
	clientOf := func(location string) *Client {
		t.Helper()
		resp := &http.Response{
			Header:  http.Header{"Location": {location}},
			Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "evil.example.com"}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is sent
		by, _, _, err := images.follow(ctx, resp, 1, request{limit: 1})
		if by == nil {
			t.Fatalf("%s: got %v and no client", location, err)
		}
		return by
	}
	first := clientOf("https://STORAGE.example.com:443/a")
	if !first.named {
		t.Error("the first spelling: got the settings of a host that is not listed")
	}
	for _, location := range []string{"https://storage.example.com/a", "https://storage.example.com:443/b"} {
		if got := clientOf(location); got != first {
			t.Errorf("%s: got another client than for the first spelling", location)
		}
	}
}

// TestThreatManifestRedirect has a registry redirect tags and manifests to another registry, as
// some public ones do. It gets no credentials, its answer for a digest is hashed, and it is no
// address that the operator never connects to.
func TestThreatManifestRedirect(t *testing.T) {
	ca := newCA(t)
	digest := digestOf([]byte(aManifest))
	mirror := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/mirror/manifests/none":
			answer(http.StatusNotFound, "application/json", unknownCode)(w, r)
		case "/mirror/manifests/secret":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			answer(http.StatusOK, manifestMediaType, aManifest)(w, r)
		}
	})
	to := "https://" + mirror.Host + "/mirror"
	server := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, to+strings.TrimPrefix(r.URL.Path, "/v2/acme/app"), http.StatusTemporaryRedirect)
	})
	images := newImages(t, map[string]Config{
		server.Host: {CABundle: string(ca.PEM), Username: "reader", Password: password},
		mirror.Host: {CABundle: string(ca.PEM), Username: "reader", Password: password},
	})
	repository := server.Host + "/acme/app"
	if got, err := images.Resolve(t.Context(), repository, "v1"); err != nil || got != digest {
		t.Errorf("Resolve: got %q, %v, want %q", got, err, digest)
	}
	if got, err := images.Manifest(t.Context(), repository, digest, MaxManifest); err != nil ||
		string(got.Body) != aManifest {
		t.Errorf("Manifest: got %q, %v, want %q", got.Body, err, aManifest)
	}
	_, err := images.Manifest(t.Context(), repository, numbered(1), MaxManifest)
	wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "which is not its digest")
	if _, err := images.Resolve(t.Context(), repository, "none"); !errors.Is(err, trust.ErrNotFound) {
		t.Errorf("a tag that the mirror does not have: got %v, want ErrNotFound", err)
	} else if f, ok := errors.AsType[*trust.Fault](err); ok {
		t.Errorf("a tag that the mirror does not have: got a fault %s, want none", f.Reason)
	}
	for _, name := range []string{repository + ":v1", repository + "@" + digest, server.Host + "/ACME/app"} {
		_, err := images.Manifest(t.Context(), name, digest, MaxManifest)
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "is not the name of a repository")
	}
	_, err = images.Resolve(t.Context(), repository, "secret")
	wantFault(t, err, v1alpha1.ReasonUnauthorized, server.Host, mirror.Host, "without credentials")
	for _, got := range mirror.authorizations() {
		if got != "" {
			t.Errorf("the mirror got the Authorization header %q", got)
		}
	}
	to = "https://169.254.169.254/mirror"
	_, err = images.Resolve(t.Context(), repository, "v1")
	wantFault(t, err, v1alpha1.ReasonAddressRefused, server.Host)
}

// A storage host speaks another protocol than a registry: none of its statuses says that there is
// no such blob, or that the registry refused access.
func TestStorageFails(t *testing.T) {
	ca := newCA(t)
	for status, reason := range map[int]string{
		http.StatusForbidden:          v1alpha1.ReasonUnexpectedAnswer,
		http.StatusNotFound:           v1alpha1.ReasonUnexpectedAnswer,
		http.StatusTooManyRequests:    v1alpha1.ReasonServerError,
		http.StatusServiceUnavailable: v1alpha1.ReasonServerError,
	} {
		storage := serve(t, ca, answer(status, "application/xml", unknownCode))
		server := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+storage.Host+"/blob", http.StatusTemporaryRedirect)
		})
		images := newImages(t, map[string]Config{
			server.Host: {CABundle: string(ca.PEM)}, storage.Host: {CABundle: string(ca.PEM)},
		})
		_, err := images.Blob(t.Context(), server.Host+"/acme/app", numbered(1), 1<<10)
		if wantFault(t, err, reason, "the storage host", fmt.Sprintf("with status %d", status), server.Host,
			storage.Host); errors.Is(err, trust.ErrNotFound) {
			t.Errorf("status %d of the storage host counts as the absence of the blob", status)
		}
		paused := trust.AsFault(err, "").RetryAt
		if status == http.StatusTooManyRequests && paused.IsZero() {
			t.Error("got no pause after status 429")
		}
	}
}

// TestImageRegistries reads registries of several settings.
func TestImageRegistries(t *testing.T) {
	t.Run("plain http where it is allowed", func(t *testing.T) {
		server := servePlain(t, answer(http.StatusOK, manifestMediaType, aManifest))
		digest, err := newImages(t, map[string]Config{server.Host: {PlainHTTP: true}}).
			Resolve(t.Context(), server.Host+"/acme/app", "v1")
		if err != nil || digest != digestOf([]byte(aManifest)) {
			t.Errorf("got %q, %v", digest, err)
		}
		_, err = newImages(t, nil).Resolve(t.Context(), server.Host+"/acme/app", "v1")
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "TLS")
	})
	t.Run("settings that cannot be used", func(t *testing.T) {
		_, err := NewImages(ImagesConfig{Registries: map[string]Config{"registry.example.com": {CABundle: "x"}}})
		if err == nil || !strings.Contains(err.Error(), `registry "registry.example.com": caBundle`) {
			t.Errorf("got %v, want an error that names the registry and the setting", err)
		}
	})
	t.Run("no name of a repository", func(t *testing.T) {
		_, err := newImages(t, nil).Resolve(t.Context(), "registry.example.com/acme/app:v1", "v1")
		wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer, "not the name of a repository")
	})
}

// A registry refuses its base endpoint to clients without credentials, and lets everybody read some
// repositories. A Pod that names another one does not make the operator take it for down. If it
// refuses the credentials of the trust root, it counts as down: else the account might be locked.
func TestThreatRefusedProbeWithoutCredentials(t *testing.T) {
	ca := newCA(t)
	var status atomic.Int32
	s := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(int(status.Load()))
	})
	for name, test := range map[string]struct {
		username, password string
		status             int
		reason             string // of the fault; empty: there is none
	}{
		"401 without credentials": {status: http.StatusUnauthorized},
		"403 without credentials": {status: http.StatusForbidden},
		"401 with credentials":    {"reader", password, http.StatusUnauthorized, v1alpha1.ReasonUnauthorized},
		"403 with credentials":    {"reader", password, http.StatusForbidden, v1alpha1.ReasonUnauthorized},
		"500 without credentials": {status: http.StatusInternalServerError, reason: v1alpha1.ReasonServerError},
	} {
		t.Run(name, func(t *testing.T) {
			status.Store(int32(test.status))
			images, err := NewImages(ImagesConfig{Registries: map[string]Config{s.Host: {
				CABundle: string(ca.PEM), Username: test.username, Password: test.password,
			}}})
			if err != nil {
				t.Fatal(err)
			}
			err = images.Probe(t.Context(), s.Host)
			if test.reason != "" {
				wantFault(t, err, test.reason, s.Host)
			} else if err != nil {
				t.Errorf("got %v, want no fault", err)
			}
		})
	}
}
