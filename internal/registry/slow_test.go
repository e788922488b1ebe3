package registry

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

// mute forwards connections until it is silenced. Then it forwards nothing, without closing them.
type mute struct {
	address string
	silent  atomic.Bool
}

func runMute(t *testing.T, to string) *mute {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{address: l.Addr().String()}
	var wg sync.WaitGroup
	done := make(chan struct{})
	pass := func(to, from net.Conn) {
		defer to.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if m.silent.Load() {
				<-done // neither forwarded nor closed
				return
			}
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			wg.Go(func() { pass(out, in) })
			wg.Go(func() { pass(in, out) })
		}
	})
	t.Cleanup(func() { l.Close(); close(done); wg.Wait() })
	return m
}

// A ping detects a dead connection long before the request times out. A slow server answers the
// ping.
func TestSilentConnectionIsFound(t *testing.T) {
	ca := newCA(t)
	release := make(chan struct{})
	s := serveHTTP2(t, ca, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == file {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, r.Proto)
	})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	m := runMute(t, u.Host)
	_, port, err := net.SplitHostPort(m.address)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{Server: "https://localhost:" + port, CABundle: string(ca.PEM), Timeout: time.Minute})
	settings := c.http.Transport.(*http.Transport).HTTP2
	if found := settings.SendPingTimeout + settings.PingTimeout; found <= 0 || found > 15*time.Second {
		t.Errorf("got a dead connection detected after %s, want 15 s", found)
	}
	settings.SendPingTimeout, settings.PingTimeout = 100*time.Millisecond, 5*time.Second
	if body, err := c.Get(t.Context(), "", "/v2/", 100); err != nil || string(body) != "HTTP/2.0" {
		t.Fatalf("got %q, %v", body, err)
	}
	answered := make(chan error, 1)
	get := func() {
		_, err := c.Get(t.Context(), repository, file, 100)
		answered <- err
	}
	go get()
	eventually(t, "the request", func() bool { return len(s.seen()) == 2 })
	select {
	case err := <-answered:
		t.Fatalf("a slow server: got %v, want no error", err)
	case <-time.After(time.Second): // ten pings
	}
	release <- struct{}{}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	go get()
	eventually(t, "the request", func() bool { return len(s.seen()) == 3 })
	m.silent.Store(true)
	select {
	case err := <-answered:
		wantFault(t, err, v1alpha1.ReasonUnreachable, "localhost:"+port)
	case <-time.After(30 * time.Second): // half of the request's timeout
		t.Fatal("got the dead connection not detected")
	}
}

// An incomplete response gives the same fault over HTTP/2, where the stream ends and not the
// connection.
func TestIncompleteHTTP2Response(t *testing.T) {
	ca := newCA(t)
	for name, before := range map[string]func(http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"in its middle": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveHTTP2(t, ca, func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 {
					t.Errorf("got a request over %s", r.Proto)
				}
				before(w)
				panic(http.ErrAbortHandler)
			})
			_, err := newClient(t, Config{Server: s.URL, CABundle: string(ca.PEM)}).Get(t.Context(), repository,
				file, 100)
			wantFault(t, err, v1alpha1.ReasonUnreachable,
				"the server closed the connection before its answer was complete")
		})
	}
}

// The client renews in time the short-lived tokens of a real token service.
func TestShortLivedTokens(t *testing.T) {
	n := notaryserver.Run(t, notaryserver.Options{
		Auth: &notaryserver.Auth{Username: "reader", Password: password, Lifetime: 2 * time.Second},
	})
	if err := notaryserver.RunClient(t, n).Init(t.Context(), repository); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, Config{
		Server: n.URL, CABundle: string(n.CA.PEM), Username: "reader", Password: password,
		TokenServices: []string{n.TokenService},
	})
	before, gets := n.TokensIssued(), int64(0)
	eventually(t, "the third token", func() bool {
		if _, err := c.Get(t.Context(), repository, file, 1<<20); err != nil {
			t.Fatal(err)
		}
		gets++
		return n.TokensIssued()-before >= 3
	})
	if gets <= 3 {
		t.Errorf("got 3 tokens for %d requests, want each token cached for a while", gets)
	}
}
