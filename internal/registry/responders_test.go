package registry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A server that a certificate names gets a request as it is, without credentials, and what it says
// is bounded.
func TestResponders(t *testing.T) {
	var got http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = *r
		body, _ = io.ReadAll(r.Body)
		_, _ = w.Write([]byte("<answer"))
	}))
	t.Cleanup(server.Close)
	r := registry.NewResponders(nil, time.Now)
	answer, err := r.Post(t.Context(), server.URL+"/ocsp?a=b", "application/ocsp-request", []byte("question"), 7)
	if err != nil || string(answer) != "<answer" {
		t.Fatalf("got %q and %v", answer, err)
	}
	if got.Method != http.MethodPost || got.URL.String() != "/ocsp?a=b" || string(body) != "question" ||
		got.Header.Get("Content-Type") != "application/ocsp-request" || got.Header.Get("Authorization") != "" {
		t.Errorf("got the request %s %s with %q and %v", got.Method, got.URL, body, got.Header)
	}
	answer, err = r.Get(t.Context(), strings.Replace(server.URL, "http://", "HTTP://", 1)+"/ca.crl", 7)
	if err != nil || string(answer) != "<answer" || got.Method != http.MethodGet {
		t.Errorf("got %q by %s and %v", answer, got.Method, err)
	}
	_, err = r.Get(t.Context(), server.URL+"/ca.crl", 6)
	if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("more than the limit: got %v, want TooLarge", err)
	}
	_, err = r.Post(t.Context(), server.URL+"/ocsp", "application/ocsp-request", nil, 6)
	if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("more than the limit by POST: got %v, want TooLarge", err)
	}
}

// A certificate cannot make the operator connect to what it must not, or send anything over.
func TestThreatResponderAddresses(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("got a request where none may go")
	}))
	t.Cleanup(inside.Close)
	away := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	t.Cleanup(away.Close)
	r := registry.NewResponders(nil, time.Now)
	for from, reason := range map[string]string{
		"http://169.254.169.254/latest":    v1alpha1.ReasonAddressRefused,
		"http://[fe80::1]/x":               v1alpha1.ReasonAddressRefused,
		"http://0.0.0.0/x":                 v1alpha1.ReasonAddressRefused,
		"http://[::ffff:169.254.169.254]/": v1alpha1.ReasonAddressRefused,
		"https://localhost/x":              v1alpha1.ReasonUnexpectedAnswer,
		"ldap://localhost/x":               v1alpha1.ReasonUnexpectedAnswer,
		"file:///etc/passwd":               v1alpha1.ReasonUnexpectedAnswer,
		"http:///x":                        v1alpha1.ReasonUnexpectedAnswer,
		"http://a:b@localhost/x":           v1alpha1.ReasonUnexpectedAnswer, "\x00": v1alpha1.ReasonUnexpectedAnswer,
		away.URL: v1alpha1.ReasonUnexpectedAnswer,
	} {
		_, err := r.Get(t.Context(), from, 1)
		if f := trust.AsFault(err, ""); err == nil || f.Reason != reason {
			t.Errorf("%q: got %v, want %s", from, err, reason)
		}
	}
}

// A server that fails gets no further request for some seconds. One that refuses does.
func TestRespondersRest(t *testing.T) {
	var requests atomic.Int32
	var status atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	now := time.Now()
	r := registry.NewResponders(nil, func() time.Time { return now })
	for _, step := range []struct {
		status, requests int
		later            time.Duration
		fails            bool
	}{
		{http.StatusInternalServerError, 1, 0, true},
		{http.StatusOK, 1, 9 * time.Second, true},
		{http.StatusOK, 2, time.Second, false},
		{http.StatusNotFound, 3, 0, true},
		{http.StatusOK, 4, 0, false},
	} {
		now = now.Add(step.later)
		status.Store(int32(step.status))
		_, err := r.Get(t.Context(), server.URL, 1)
		if (err != nil) != step.fails || int(requests.Load()) != step.requests {
			t.Errorf("%+v: got %v and %d requests", step, err, requests.Load())
		}
	}
	server.Close()
	if _, err := r.Get(
		t.Context(),
		server.URL,
		1,
	); err == nil ||
		trust.AsFault(err, "").Reason != v1alpha1.ReasonUnreachable {
		t.Errorf("down: got %v, want Unreachable", err)
	}
}

// However a certificate spells the name of a server, it gets no further request after a failure.
func TestRespondersRestUnderAnySpelling(t *testing.T) {
	var requests atomic.Int32
	var host string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host = r.Host
		requests.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	now := time.Now()
	r := registry.NewResponders(nil, func() time.Time { return now })
	for _, spelled := range []string{"LocalHost", "LOCALHOST", "localhost"} {
		_, err := r.Get(t.Context(), strings.Replace(server.URL, "127.0.0.1", spelled, 1), 1)
		if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonServerError {
			t.Errorf("%s: got %v, want ServerError", spelled, err)
		}
	}
	if n := requests.Load(); n != 1 || !strings.HasPrefix(host, "localhost:") {
		t.Errorf("got %d requests to %q, want one to localhost", n, host)
	}
}

// A request that succeeds after another one has failed ends the time without requests.
func TestRespondersRestEndsWithSuccess(t *testing.T) {
	began, failed := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			close(began)
			<-failed
		case "/fails":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	now := time.Now()
	r := registry.NewResponders(nil, func() time.Time { return now })
	slow := make(chan error)
	go func() {
		_, err := r.Get(t.Context(), server.URL+"/slow", 1)
		slow <- err
	}()
	<-began
	if _, err := r.Get(t.Context(), server.URL+"/fails", 1); err == nil {
		t.Error("got no fault, want that of the server")
	}
	if _, err := r.Get(t.Context(), server.URL+"/other", 1); err == nil {
		t.Error("got an answer, want no request after the failure")
	}
	close(failed)
	if err := <-slow; err != nil {
		t.Errorf("got %v, want an answer", err)
	}
	if _, err := r.Get(t.Context(), server.URL+"/other", 1); err != nil {
		t.Errorf("got %v, want an answer", err)
	}
}

// A request that its caller gives up says nothing about the server.
func TestRespondersOfACallerThatGivesUp(t *testing.T) {
	var wait atomic.Bool
	wait.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if wait.Load() {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	r := registry.NewResponders(nil, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Get(ctx, server.URL, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want it cancelled", err)
	}
	wait.Store(false)
	if _, err := r.Get(t.Context(), server.URL, 1); err != nil {
		t.Errorf("got %v, want an answer at once", err)
	}
}
