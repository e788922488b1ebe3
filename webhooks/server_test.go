package webhooks

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// running is a Server with a handler that answers when the test allows it.
type running struct {
	*Server
	url     string
	listen  net.Listener
	ca      *tlstest.CA
	client  *http.Client
	stop    context.CancelFunc
	ended   chan error
	held    chan context.Context // the context of each request to /held
	release chan struct{}        // closed to let these requests end
}

func runServer(t *testing.T, o ServerOptions) *running {
	t.Helper()
	s := prepareServer(t, o)
	s.serve(t)
	return s
}

// patient returns limits that no request reaches on a slow machine.
func patient() Limits {
	limits := DefaultLimits()
	limits.Read, limits.Write = time.Hour, time.Hour
	return limits
}

// prepareServer makes a server that does not serve yet: with a certificate of its own, and with
// patient limits unless the options have others.
func prepareServer(t *testing.T, o ServerOptions) *running {
	t.Helper()
	if o.Limits == (Limits{}) {
		o.Limits = patient()
	}
	ca, err := tlstest.NewCA("test CA")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pkix.Name{CommonName: "webhook"}, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
	// The server gets the listener and not a free port, which another process could use by then.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := &running{
		Server: NewServer(o),
		url:    "https://" + listener.Addr().String(),
		listen: listener,
		ca:     ca,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12},
		}},
		ended: make(chan error, 1), held: make(chan context.Context), release: make(chan struct{}),
	}
	s.Register("/now", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto) }))
	s.Register("/held", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.held <- r.Context()
		<-s.release
		_, _ = fmt.Fprint(w, r.Proto)
	}))
	return s
}

func (s *running) serve(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	go func() { s.ended <- s.serveOn(ctx, s.listen) }()
	t.Cleanup(func() {
		cancel()
		s.client.CloseIdleConnections()
		s.Leave()
	})
	poll.Await(t, "the server", func() error { return s.StartedChecker()(nil) })
}

func newRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// request sends a request as an API server does, and reports whether it reused a connection.
func (s *running) request(t *testing.T, path string) (reused bool, err error) {
	t.Helper()
	r := newRequest(t, s.url+path)
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	resp, err := s.client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "HTTP/2.0" {
		err = fmt.Errorf("got the body %q, want HTTP/2.0", body)
	}
	return reused, err
}

func TestServerLeaves(t *testing.T) {
	const delay = 2 * time.Second
	s := runServer(t, ServerOptions{ShutdownDelay: delay})
	if err := s.Ready(nil); err != nil {
		t.Fatalf("at the start: got %v from Ready, want nil", err)
	}
	if _, err := s.request(t, "/now"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	go s.Leave()
	poll.Await(t, "the server to report that it is not ready", func() error {
		if s.Ready(nil) == nil {
			return errors.New("still ready")
		}
		return nil
	})

	// It answers all the time: on the open connection until half of the delay has passed, and on
	// new ones until the end.
	var fresh int
	answered := 0
	var refused error
	for refused == nil {
		var reused bool
		if reused, refused = s.request(t, "/now"); refused == nil {
			answered++
			if !reused {
				fresh++
			}
			if age := time.Since(began); !reused && age < delay/2 {
				t.Errorf("got a new connection after %s, want the old one until %s", age, delay/2)
			}
		}
	}
	if age := time.Since(began); age < delay {
		t.Errorf("got %v after %s, want answers for %s", refused, age, delay)
	}
	if answered < 10 || fresh != 1 {
		t.Errorf("got %d answers on %d new connections, want at least 10 on one", answered, fresh)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("got %v from the server, want nil", err)
	}
}

// Requests in flight are answered when the server leaves, and when the manager ends, as it does
// when it loses its lease.
func TestServerAnswersRequestsInFlight(t *testing.T) {
	for name, leave := range map[string]func(*running){
		"left":          func(s *running) { go s.Leave() },
		"manager ended": func(s *running) { s.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			s := runServer(t, ServerOptions{})
			answer := make(chan error, 1)
			go func() {
				_, err := s.request(t, "/held")
				answer <- err
			}()
			held := <-s.held
			leave(s)
			poll.Await(t, "the port to be closed", func() error {
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "https://"))
				if err == nil {
					conn.Close()
					return errors.New("still open")
				}
				return nil
			})
			if err := held.Err(); err != nil {
				t.Errorf("the context of the request in flight: got %v, want nil", err)
			}
			select {
			case err := <-s.ended:
				t.Errorf("the server ended before its answer: %v", err)
			default:
			}
			close(s.release)
			if err := <-answer; err != nil {
				t.Errorf("the request in flight: got %v, want an answer", err)
			}
			if err := <-s.ended; err != nil {
				t.Errorf("got %v from the server, want nil", err)
			}
		})
	}
}

func TestServerTurnsAwayOnce(t *testing.T) {
	s := runServer(t, ServerOptions{})
	for _, want := range []bool{false, true} {
		if reused, err := s.request(t, "/now"); err != nil || reused != want {
			t.Fatalf("got connection reused %t, %v, want %t", reused, err, want)
		}
	}
	s.TurnAway()
	poll.Await(t, "another connection", func() error {
		reused, err := s.request(t, "/now")
		if err == nil && reused {
			err = errors.New("the old one was reused")
		}
		return err
	})
	for range 3 {
		if reused, err := s.request(t, "/now"); err != nil || !reused {
			t.Fatalf("got connection reused %t, %v, want true", reused, err)
		}
	}
}
