package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/process"
	"github.com/countersign-dev/countersign/internal/trust"
)

// observed is an Observer that keeps what it receives.
type observed struct {
	mu  sync.Mutex
	all []Exchange
}

func (o *observed) Requested(e Exchange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, e)
}

// observedHosts returns Hosts whose requests are kept.
func observedHosts() (*Hosts, *observed) {
	h, o := NewHosts(time.Now), &observed{}
	h.Observer = o
	return h, o
}

// want compares what was received, in its order, and forgets it. Times are compared with zero
// alone.
func (o *observed) want(t *testing.T, want ...Exchange) {
	t.Helper()
	o.mu.Lock()
	got := o.all
	o.all = nil
	o.mu.Unlock()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Exchange{}, "Took", "Ended")); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for _, e := range got {
		if e.Ended.IsZero() || e.Sent != (e.Took > 0) {
			t.Errorf("got times %v and %v of %+v, want the first for what was sent, and the second", e.Took, e.Ended, e)
		}
	}
}

// TestResults sends requests that end in each way, and compares what the observer receives.
func TestResults(t *testing.T) {
	ca := newCA(t)
	closed, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	status := func(code int) string { return serve(t, ca, answer(code, "application/json", unknownCode)).URL }
	text := func(kind, body string) string { return serve(t, ca, answer(http.StatusOK, kind, body)).URL }
	hangs := serve(t, ca, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	tests := map[string]struct {
		server string
		want   string
		unsent bool
	}{
		"answer":             {server: status(200), want: "ok"},
		"nothing there":      {server: status(404), want: "not_found"},
		"forbidden":          {server: status(403), want: v1alpha1.ReasonUnauthorized},
		"without a password": {server: status(401), want: "challenged"},
		"rate limit":         {server: status(429), want: "rate_limited"},
		"server error":       {server: status(502), want: v1alpha1.ReasonServerError},
		"bad request":        {server: status(400), want: v1alpha1.ReasonServerError},
		"web page":           {server: text("text/html", "<html>"), want: v1alpha1.ReasonUnexpectedAnswer},
		"too large":          {server: text("", strings.Repeat("x", 200)), want: v1alpha1.ReasonTooLarge},
		"hangs":              {server: hangs.URL, want: v1alpha1.ReasonTimeout},
		"connection refused": {server: fmt.Sprintf("https://127.0.0.1:%d", closed), want: v1alpha1.ReasonUnreachable},
		"another CA": {
			server: serve(t, newCA(t), answer(200, "", "{}")).URL, want: v1alpha1.ReasonTLSNotTrusted,
		},
		"refused address": {
			server: "https://169.254.169.254", want: v1alpha1.ReasonAddressRefused, unsent: true,
		},
		"redirected elsewhere": {
			server: serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://other.example.com/", http.StatusFound)
			}).URL,
			want: v1alpha1.ReasonUnexpectedAnswer,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			hosts, o := observedHosts()
			c := newClient(t, Config{Server: test.server, CABundle: string(ca.PEM), Hosts: hosts})
			ctx := t.Context()
			if test.want == v1alpha1.ReasonTimeout {
				short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				ctx = short
			}
			_, _ = c.Get(ctx, repository, file, 100) // the results are those of the observer
			o.want(t, Exchange{
				Host: strings.TrimPrefix(test.server, "https://"), Named: true, Result: test.want, Sent: !test.unsent,
			})
		})
	}
}

// A request that is not sent is reported, too.
func TestResultsOfUnsentRequests(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "300")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	hosts, o := observedHosts()
	c := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Hosts: hosts})
	short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		_, _ = c.Get(short, repository, file, 100)
	}
	o.want(t, Exchange{Host: s.Host, Named: true, Result: "rate_limited", Sent: true},
		Exchange{Host: s.Host, Named: true, Result: "paused"})

	crowded := &crowd{release: make(chan struct{})}
	s = serve(t, ca, crowded.ServeHTTP)
	hosts, o = observedHosts()
	c = newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM), Hosts: hosts})
	var wg sync.WaitGroup
	for i := range maxRequests / 2 {
		ctx := trust.WithPurpose(t.Context(), trust.Purpose{Namespace: fmt.Sprint(i)})
		wg.Go(func() { _, _ = c.Get(ctx, fmt.Sprint(i), file, 100) })
	}
	eventually(t, "the requests in flight", func() bool { return crowded.now.Load() == maxRequests/2 })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = c.Get(ended, repository, file, 100)
	o.want(t, Exchange{Host: s.Host, Named: true, Result: "busy"})
	close(crowded.release)
	wg.Wait()
}

// Each request of an authentication is reported, with the host that it was sent to.
func TestResultsOfAnAuthentication(t *testing.T) {
	ca := newCA(t)
	token := serve(t, ca, tokens())
	s := serve(t, ca, guarded(bearer(token.URL)))
	refusing := serve(t, ca, answer(http.StatusUnauthorized, "application/json", "{}"))
	refused := serve(t, ca, guarded(bearer(refusing.URL)))
	hosts, o := observedHosts()
	get := func(server, service *recorder) {
		c := newClient(t, Config{
			Server: server.URL, CABundle: string(ca.PEM), Hosts: hosts, TokenServices: []string{service.Host},
		})
		_, _ = c.Get(trust.WithPurpose(t.Context(), trust.Purpose{Known: true}), repository, file, 100)
	}
	get(s, token)
	o.want(t, Exchange{Host: s.Host, Named: true, Signed: true, Result: "challenged", Sent: true},
		Exchange{Host: token.Host, Named: true, Result: "ok", Sent: true},
		Exchange{Host: s.Host, Named: true, Signed: true, Result: "ok", Sent: true})
	get(refused, refusing)
	o.want(t, Exchange{Host: refused.Host, Named: true, Signed: true, Result: "challenged", Sent: true},
		Exchange{Host: refusing.Host, Named: true, Result: v1alpha1.ReasonUnauthorized, Sent: true})
}

// TestThreatHostsThatPodsName checks which hosts the observer may take for named by an
// administrator, or for those of signed repositories. A Pod names any registry, and a registry any
// storage host.
func TestThreatHostsThatPodsName(t *testing.T) {
	ca := newCA(t)
	ok := answer(http.StatusOK, manifestMediaType, aManifest)
	unlisted := serve(t, ca, ok)
	storage := serve(t, ca, ok)
	listed := serve(t, ca, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storage.URL+"/blob", http.StatusTemporaryRedirect)
	})
	hosts, o := observedHosts()
	images, err := NewImages(ImagesConfig{
		Registries: map[string]Config{listed.Host: {CABundle: string(ca.PEM)}}, Hosts: hosts,
	})
	if err != nil {
		t.Fatal(err)
	}
	known := trust.WithPurpose(t.Context(), trust.Purpose{Known: true})

	_, _ = images.Resolve(t.Context(), unlisted.Host+"/acme/app", "v1")
	o.want(t, Exchange{Host: unlisted.Host, Result: v1alpha1.ReasonTLSNotTrusted, Sent: true})
	_ = images.Probe(known, unlisted.Host) // the tracker probes with this purpose
	o.want(t, Exchange{Host: unlisted.Host, Result: v1alpha1.ReasonTLSNotTrusted, Sent: true})
	_, _ = images.Resolve(known, unlisted.Host+"/acme/app", "v1")
	o.want(t, Exchange{Host: unlisted.Host, Signed: true, Result: v1alpha1.ReasonTLSNotTrusted, Sent: true})

	_, _ = images.Blob(known, listed.Host+"/acme/app", digestOf([]byte(aManifest)), 100)
	o.want(t, Exchange{Host: listed.Host, Named: true, Signed: true, Result: "ok", Sent: true},
		Exchange{Host: storage.Host, Result: v1alpha1.ReasonTLSNotTrusted, Sent: true})

	hub, err := images.client(dockerIO)
	if err != nil || !hub.named {
		t.Errorf("got docker.io named: %t, %v, want it named: its hosts are constants", hub.named, err)
	}
}

// A host has one name, however its URL is written.
func TestHostOfARequest(t *testing.T) {
	tests := map[string]string{
		"https://Registry.Example.com.:443/v2/":   "registry.example.com",
		"https://registry.example.com/v2/":        "registry.example.com",
		"https://registry.example.com:5000/v2/":   "registry.example.com:5000",
		"http://registry.example.com:80/v2/":      "registry.example.com",
		"https://[2001:db8::1]:443/v2/":           "[2001:db8::1]",
		"https://registry.example.com:5000/?a=b#": "registry.example.com:5000",
		"https://%ff.example.com/":                "\ufffd.example.com",
	}
	for text, want := range tests {
		target, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		hosts, o := observedHosts()
		hosts.observe(target, Exchange{})
		if got := o.all[0].Host; got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
