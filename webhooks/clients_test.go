package webhooks

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

func issue(t *testing.T, ca *tlstest.CA, name string) tls.Certificate {
	t.Helper()
	c, err := ca.Issue(pkix.Name{CommonName: name})
	if err != nil {
		t.Fatal(err)
	}
	return c.TLS
}

func newCA(t *testing.T, name string) *tlstest.CA {
	t.Helper()
	ca, err := tlstest.NewCA(name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// With a client CA, only clients with a certificate of it are answered, on any path and over both
// protocols. The body of any other client is not read.
func TestThreatClientsWithoutACertificateAreNotAnswered(t *testing.T) {
	ca, other := newCA(t, "clients"), newCA(t, "clients") // of the same name
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	s, b := runGate(t, gateOptions{clients: certs.NewClientCA(file, clock.RealClock{})})
	b.Namespaces, b.LiveNamespaces = glass("INC-1"), glass("INC-1")
	raw, err := json.Marshal(request{kind: "Pod", object: object("Pod", unsigned)}.review(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", http2), func(t *testing.T) {
			code, body := s.post(t, s.from(t, stranger, http2), raw)
			if code != http.StatusUnauthorized || !strings.Contains(string(body), "--webhook-client-ca") {
				t.Errorf("without a certificate: got %d %q, want 401 that names the flag", code, body)
			}
			if code, _ = s.post(t, s.from(t, stranger, http2), nil); code != http.StatusUnauthorized || b.used() != 0 {
				t.Errorf("a stalled body: got %d with %d bytes in use, want 401 with 0", code, b.used())
			}
			for name, ca := range map[string]*tlstest.CA{"another CA": other, "the server's own CA": s.ca} {
				s.refusesHandshake(t, s.from(t, stranger, http2, issue(t, ca, "kube-apiserver")), name)
			}
		})
	}
	if events := b.Events.(*recorded).all(); len(events) > 0 {
		t.Errorf("forged reviews: got the events %q, want none", events)
	}
	for _, http2 := range []bool{false, true} {
		got, _ := s.review(t, s.from(t, stranger, http2, issue(t, ca, "kube-apiserver")),
			request{kind: "Pod", object: object("Pod", unsigned)})
		wantAdmitted(t, got)
	}
	if events := b.Events.(*recorded).all(); len(events) != 2 {
		t.Errorf("reviews of an API server: got the events %q, want two by break-glass", events)
	}
}

// refusesHandshake checks that the handshake of a client fails because of its certificate.
func (s *running) refusesHandshake(t *testing.T, client *http.Client, name string) {
	t.Helper()
	resp, err := client.Do(s.newReview(t.Context(), http.NoBody))
	if err == nil { // the text of the error depends on what the client was doing
		resp.Body.Close()
		t.Errorf("%s: got the answer %s, want a failed handshake", name, resp.Status)
	}
}

// A connection with a certificate that does not verify is closed at once, which frees the
// certificate.
func TestThreatBadCertificatesAreNotHeld(t *testing.T) {
	ca, other := newCA(t, "clients"), newCA(t, "others")
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := runGate(t, gateOptions{clients: certs.NewClientCA(file, clock.RealClock{})})
	for range 4 {
		conn := tls.Client(s.dial(t, stranger), &tls.Config{
			RootCAs: s.ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13,
			Certificates: []tls.Certificate{issue(t, other, "x")},
		})
		if err := conn.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err) // the server has yet to see the certificate
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a closed connection", err)
		}
	}
	poll.Await(t, "all connections to be closed", func() error {
		if n := s.conns.Open(); n > 0 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
}

// The certificate of an open connection is verified again when the CA file changes.
func TestThreatClientCAIsReadAgain(t *testing.T) {
	ca, next := newCA(t, "clients"), newCA(t, "clients of tomorrow")
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(ca.PEM)
	clients := certs.NewClientCA(file, clock.RealClock{})
	clients.Interval = 20 * time.Millisecond
	s, _ := runGate(t, gateOptions{clients: clients})
	go func() { _ = clients.Start(t.Context()) }()
	old, young := s.from(t, stranger, true, issue(t, ca, "old")), s.from(t, stranger, true, issue(t, next, "young"))
	await := func(what string, client *http.Client, want int) {
		t.Helper()
		poll.Await(t, what, func() error {
			if code, body := s.post(t, client, []byte("{}")); code != want {
				return fmt.Errorf("got %d %q, want %d", code, body, want)
			}
			return nil
		})
	}
	await("the old client", old, http.StatusOK)
	s.refusesHandshake(t, young, "the young client")
	write(next.PEM)
	await("the old client, over its open connection", old, http.StatusUnauthorized)
	await("the young client", young, http.StatusOK)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	await("any client without a CA file", young, http.StatusServiceUnavailable)
	if err := clients.Ready(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: got %v from Ready, want os.ErrNotExist", err)
	}
}

// The number of recorded admissions is limited for each client. So a client with forged reviews
// does not use up the limit of another.
func TestThreatForgedBreakGlassIsBounded(t *testing.T) {
	s, b := runGate(t, gateOptions{})
	b.Namespaces, b.LiveNamespaces = glass("INC-1"), glass("INC-1")
	events := b.Events.(*recorded)
	forger, server := s.from(t, stranger, true), s.from(t, neighbour, true)
	send := func(client *http.Client, n int) {
		t.Helper()
		for range n {
			got, _ := s.review(t, client, request{kind: "Pod", object: object("Pod", unsigned)})
			wantAdmitted(t, got)
		}
	}
	send(server, 1)
	if got := events.all(); len(got) != 1 || !strings.Contains(got[0], "let in what would be denied") {
		t.Errorf("the first admission: got the events %q, want one", got)
	}
	send(forger, recordsOfClient+40)
	got := events.all()
	if len(got) != recordsOfClient+1 || !strings.Contains(got[recordsOfClient], " Omit ") {
		t.Errorf("%d forged reviews: got %d events, the last %q, want %d and the last an Omit", recordsOfClient+40,
			len(got), got[len(got)-1], recordsOfClient+1)
	}
	send(server, 1)
	if got := events.all(); len(got) != 1 || !strings.Contains(got[0], "let in what would be denied") {
		t.Errorf("after the forged reviews: got the events %q, want one", got)
	}
}
