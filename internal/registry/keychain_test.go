package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/trust"
)

// keychain has the pull secrets of some namespaces, and records the calls.
type keychain struct {
	found map[string]Found
	fault *trust.Fault

	mu    sync.Mutex
	calls []string
}

func (k *keychain) Credentials(_ context.Context, namespace, repository string, anew bool) (Found, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	call := namespace + " " + repository
	if anew {
		call += " anew"
	}
	k.calls = append(k.calls, call)
	if k.fault != nil {
		return Found{}, k.fault
	}
	return k.found[namespace], nil
}

func (k *keychain) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	calls := k.calls
	k.calls = nil
	return calls
}

func pullSecret(name, username, password string) Credential {
	return Credential{Username: username, Password: password, Source: `Secret "` + name + `"`}
}

func secrets(all ...Credential) Found { return Found{Credentials: all} }

// A real registry with a password lets in only who has it. Its storage host gets no credentials.
func TestKeychain(t *testing.T) {
	server := distribution.Run(t, distribution.Options{Username: "reader", Password: password, Storage: true})
	p := push(t, server.Host, server.Options(t.Context())...)
	images := newImages(t, map[string]Config{
		server.Host: {CABundle: string(server.CA.PEM)}, server.Storage: {CABundle: string(server.StorageCA.PEM)},
	})
	k := &keychain{found: map[string]Found{
		"right": secrets(pullSecret("old", "reader", "wrong-"+password), pullSecret("pull", "reader", password)),
		"wrong": secrets(pullSecret("old", "reader", "wrong-"+password)),
		"none":  {Notes: []string{`Secret "gone" does not exist`}},
	}}
	with := func(namespace string) context.Context { return WithKeychain(t.Context(), k, namespace) }

	ctx := with("right")
	if got, err := images.Resolve(ctx, p.repository, "v1"); err != nil || got != p.digest {
		t.Fatalf("Resolve: got %s, %v, want %s", got, err, p.digest)
	}
	if got := k.taken(); !slices.Equal(got, []string{"right " + p.repository}) {
		t.Errorf("got calls %q, want one", got)
	}
	if m, err := images.Tagged(ctx, p.repository, "v1"); err != nil || m.Digest != p.digest {
		t.Errorf("Tagged: got %s, %v, want %s", m.Digest, err, p.digest)
	}
	list, err := images.Referrers(ctx, p.repository, p.digest, signatureType)
	if err != nil || len(list) != 1 {
		t.Fatalf("Referrers: got %v, %v, want one", list, err)
	}
	if _, err := images.Manifest(ctx, p.repository, p.digest, MaxManifest); err != nil {
		t.Errorf("Manifest: %v", err)
	}
	if got, err := images.Blob(ctx, p.repository, p.layer, 1<<10); err != nil || string(got) != string(p.payload) {
		t.Errorf("Blob: got %q, %v, want %q", got, err, p.payload)
	}
	if got := server.Fetched(); len(got) == 0 || strings.Join(got, "") != "" {
		t.Errorf("the storage host got Authorization headers %q, want empty ones", got)
	}
	if got := k.taken(); len(got) != 0 {
		t.Errorf("got calls %q once a credential was accepted, want none", got)
	}

	_, err = images.Resolve(with("wrong"), p.repository, "v1")
	wantFault(t, err, v1alpha1.ReasonUnauthorized, p.repository+`: no pull secret of namespace "wrong" could read it`,
		"access was refused (status 401)", `with Secret "old"`)
	if strings.Contains(err.Error(), "reader") {
		t.Errorf("got the message %v, want no user name in it", err)
	}
	if got := k.taken(); !slices.Equal(got, []string{"wrong " + p.repository, "wrong " + p.repository + " anew"}) {
		t.Errorf("got calls %q, want a second one after the refusal", got)
	}
	_, err = images.Tagged(with("wrong"), p.repository, "v1")
	wantFault(t, err, v1alpha1.ReasonUnauthorized, `namespace "wrong"`, `with Secret "old"`)
	_, err = images.Resolve(with("none"), p.repository, "v1")
	wantFault(t, err, v1alpha1.ReasonUnauthorized, `namespace "none"`, `Secret "gone" does not exist`)
	_, err = images.Resolve(with("other"), p.repository, "v1")
	wantFault(t, err, v1alpha1.ReasonUnauthorized, `neither the Pods of namespace "other"`)
	_, err = images.Resolve(t.Context(), p.repository, "v1")
	wantFault(t, err, v1alpha1.ReasonUnauthorized)

	k.fault = trust.NewFault(v1alpha1.ReasonPullSecretsUnreadable, "may not read them")
	_, err = images.Resolve(with("right"), p.repository, "v1")
	wantFault(t, err, v1alpha1.ReasonPullSecretsUnreadable, "may not read them")
}

// A fetch for a namespace uses neither the credentials of the configuration nor what they obtained,
// and the other way round.
func TestThreatAccountsShareNothing(t *testing.T) {
	ca, issued := newCA(t), map[string]string{"team-a": "issued-token-a", "config": "issued-token-config"}
	var server *recorder
	server = serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			user, given, _ := r.BasicAuth()
			if token, ok := issued[user]; ok && given == password {
				_, _ = w.Write([]byte(`{"token":"` + token + `","expires_in":300}`))
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		guarded(bearer(server.URL+"/token"))(w, r)
	})
	images := newImages(t, map[string]Config{
		server.Host: {CABundle: string(ca.PEM), Username: "config", Password: password},
	})
	repository := server.Host + "/acme/app"
	k := &keychain{found: map[string]Found{
		"team-a": secrets(pullSecret("pull", "team-a", password)),
		"team-b": secrets(pullSecret("pull", "team-b", password)),
		// The user of another namespace, with a guessed password.
		"team-c": secrets(pullSecret("pull", "team-a", "guess")),
	}}
	resolve := func(ctx context.Context) error {
		_, err := images.Manifest(ctx, repository, digestOf([]byte(`{}`)), MaxManifest)
		return err
	}
	for range 2 {
		if err := resolve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := resolve(WithKeychain(t.Context(), k, "team-a")); err != nil {
			t.Fatal(err)
		}
		for _, namespace := range []string{"team-b", "team-c"} {
			wantFault(t, resolve(WithKeychain(t.Context(), k, namespace)), v1alpha1.ReasonUnauthorized,
				`namespace "`+namespace+`"`, "the token service refused a token (status 401)")
		}
	}
	counts := map[string]int{}
	for _, sent := range server.authorizations() {
		counts[sent]++
	}
	want := map[string]int{"Bearer issued-token-a": 2, "Bearer issued-token-config": 2}
	for sent, n := range counts {
		if strings.HasPrefix(sent, "Bearer") && n != want[sent] {
			t.Errorf("%s was sent %d times, want %d", sent, n, want[sent])
		}
	}
	basicOf := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	if got := counts[basicOf("team-a", password)]; got != 1 {
		t.Errorf("the password of team-a was sent %d times, want once: its token is kept", got)
	}
}

// A pull secret is sent to the host of its entry, and not on a redirect, to a token service of
// another host, to a storage host or without encryption.
func TestThreatPullSecretIsForItsHost(t *testing.T) {
	ca := newCA(t)
	other := serve(t, ca, tokens())
	plain := servePlain(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	k := &keychain{found: map[string]Found{"team-a": secrets(pullSecret("pull", "reader", password))}}
	digest := digestOf([]byte(aManifest))
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v2/acme/") && r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			if !strings.HasPrefix(r.URL.Path, "/v2/acme/") {
				_, _ = w.Write([]byte(aManifest))
				return
			}
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}
	}
	tests := map[string]struct {
		handler http.HandlerFunc
		blob    bool
		fault   string // empty: the answer is read
	}{
		"redirect within the host":           {handler: redirect("/v2/team-b/app/manifests/x")},
		"redirect of a blob within the host": {handler: redirect("/v2/team-b/app/blobs/x"), blob: true},
		"redirect to another host":           {redirect(other.URL + "/x"), false, v1alpha1.ReasonUnexpectedAnswer},
		"redirect of a blob to another host": {redirect(other.URL + "/x"), true, v1alpha1.ReasonUnexpectedAnswer},
		"token service of another host": {
			guarded(bearer(other.URL + "/token")), false, v1alpha1.ReasonUnauthorized,
		},
		"token service without encryption": {
			guarded(bearer(plain.URL + "/token")), false, v1alpha1.ReasonUnexpectedAnswer,
		},
		"token service, with a user of its own": {
			guarded(bearer("https://reader:x@" + other.Host + "/token")), false, v1alpha1.ReasonUnexpectedAnswer,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := serve(t, ca, test.handler)
			images := newImages(t, map[string]Config{
				server.Host: {CABundle: string(ca.PEM)}, other.Host: {CABundle: string(ca.PEM)},
			})
			ctx, repository := WithKeychain(t.Context(), k, "team-a"), server.Host+"/acme/app"
			var err error
			if test.blob {
				_, err = images.Blob(ctx, repository, digest, 1<<10)
			} else {
				_, err = images.Manifest(ctx, repository, digest, MaxManifest)
			}
			if test.fault == "" && err != nil {
				t.Errorf("got %v, want the answer", err)
			} else if test.fault != "" {
				wantFault(t, err, test.fault)
			}
			for _, r := range server.seen() {
				if strings.HasPrefix(r.URL.Path, "/v2/team-b/") && r.Header.Get("Authorization") != "" {
					t.Errorf("%s got the pull secret on a redirect", r.URL.Path)
				}
			}
			for _, r := range []*recorder{other, plain} {
				if got := strings.Join(r.authorizations(), ""); got != "" {
					t.Errorf("%s got Authorization headers %q, want none", r.URL, got)
				}
			}
		})
	}
	t.Run("redirect of a list within the host", func(t *testing.T) {
		server := serve(t, ca, redirect("/v2/team-b/app/referrers/x"))
		images := newImages(t, map[string]Config{server.Host: {CABundle: string(ca.PEM)}})
		_, err := images.Referrers(WithKeychain(t.Context(), k, "team-a"), server.Host+"/acme/app", digest, "")
		if err != nil {
			t.Errorf("got %v, want the list", err)
		}
		requests := server.seen()
		last := requests[len(requests)-1]
		if !strings.HasPrefix(last.URL.Path, "/v2/team-b/") || last.Header.Get("Authorization") != "" {
			t.Errorf("%s got the Authorization header %q, want none after the redirect", last.URL.Path,
				last.Header.Get("Authorization"))
		}
	})
	t.Run("the same account at two hosts", func(t *testing.T) {
		first, second := serve(t, ca, redirect("/x")), serve(t, ca, redirect("/x"))
		images := newImages(t, map[string]Config{
			first.Host: {CABundle: string(ca.PEM)}, second.Host: {CABundle: string(ca.PEM)},
		})
		for _, server := range []*recorder{first, second} {
			ctx := WithKeychain(t.Context(), k, "team-a")
			if _, err := images.Manifest(ctx, server.Host+"/acme/app", digest, MaxManifest); err != nil {
				t.Fatal(err)
			}
			if got := server.authorizations(); got[0] != "" {
				t.Errorf("%s got the Authorization header %q before it requested one", server.URL, got[0])
			}
		}
	})
	t.Run("without encryption", func(t *testing.T) {
		images := newImages(t, map[string]Config{plain.Host: {PlainHTTP: true}})
		_, err := images.Manifest(WithKeychain(t.Context(), k, "team-a"), plain.Host+"/acme/app", digest, MaxManifest)
		wantFault(t, err, v1alpha1.ReasonUnauthorized, "over https only")
		if got := plain.authorizations(); len(got) != 0 {
			t.Errorf("got requests with Authorization headers %q, want none at all", got)
		}
	})
	t.Run("redirect to what needs no encryption", func(t *testing.T) {
		server := serve(t, ca, redirect(plain.URL+"/x"))
		images := newImages(t, map[string]Config{
			server.Host: {CABundle: string(ca.PEM)}, plain.Host: {PlainHTTP: true},
		})
		_, err := images.Blob(WithKeychain(t.Context(), k, "team-a"), server.Host+"/acme/app", digest, 1<<10)
		if err == nil {
			t.Error("got an answer, want an error: the plain host answers 401")
		}
		if diff := cmp.Diff([]string{""}, plain.authorizations()); diff != "" {
			t.Errorf("Authorization headers at the plain host (-want +got):\n%s", diff)
		}
	})
}

// A namespace with many pull secrets for one registry costs a bounded number of requests.
func TestThreatPullSecretsAreBounded(t *testing.T) {
	ca := newCA(t)
	server := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	var all []Credential
	for range 100 {
		all = append(all, pullSecret("pull", "reader", strings.Repeat("x", len(all))+password))
	}
	images, repository := imagesOf(t, ca, server)
	k := &keychain{found: map[string]Found{"team-a": secrets(all...)}}
	_, err := images.Resolve(WithKeychain(t.Context(), k, "team-a"), repository, "v1")
	wantFault(t, err, v1alpha1.ReasonUnauthorized, "and 8 more")
	if got := len(server.seen()); got != 2*maxCredentials {
		t.Errorf("got %d requests, want two for each of %d credentials", got, maxCredentials)
	}
}

// No account sends its password without encryption, whatever made the client.
func TestPasswordIsSentOverTLSOnly(t *testing.T) {
	var server *recorder
	server = servePlain(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("WWW-Authenticate", strings.ReplaceAll(r.URL.Query().Get("challenge"), "SERVER", server.URL))
		w.WriteHeader(http.StatusUnauthorized)
	})
	for _, challenge := range []string{`Basic realm="r"`, `Bearer realm="SERVER/token"`} {
		anonymous := newClient(t, Config{Server: server.URL, PlainHTTP: true})
		c := anonymous.as(account{username: "reader", password: password}, cache.NewLRUExpireCache(1))
		target, err := c.target("/v2/acme/app/manifests/v1")
		if err != nil {
			t.Fatal(err)
		}
		target.RawQuery = url.Values{"challenge": {challenge}}.Encode()
		_, err = c.get(t.Context(), "acme/app", target, 1<<10)
		wantFault(t, err, v1alpha1.ReasonUnauthorized)
	}
	if got := server.authorizations(); len(got) != 3 || strings.Join(got, "") != "" {
		t.Errorf("got Authorization headers %q, want 3 empty ones: of two challenges and a token", got)
	}
}

// A redirect that changes the scheme leads to another server, even on the same port.
func TestRedirectToAnotherScheme(t *testing.T) {
	request := func(target string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	encrypted := []*http.Request{request("https://registry.example.com:8443/v2/")}
	same, plain := request("https://registry.example.com:8443/x"), request("http://registry.example.com:8443/x")
	if err := checkRedirect(same, encrypted); err != nil {
		t.Errorf("the same scheme: got %v, want none", err)
	}
	if err := checkRedirect(plain, encrypted); err == nil {
		t.Error("another scheme was followed, want an error")
	}
	if err := returnRedirect(same, encrypted); err != nil {
		t.Errorf("the same scheme, of a request that may be redirected: got %v, want none", err)
	}
	if err := returnRedirect(plain, encrypted); !errors.Is(err, http.ErrUseLastResponse) {
		t.Errorf("another scheme, of a request that may be redirected: got %v, want the response itself", err)
	}
}
