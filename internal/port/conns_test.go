package port_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/port"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// listen returns an empty set of connections, and a listener for it on loopback.
func listen(t *testing.T, connections, http2 port.ConnLimits) (*port.Conns, net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := port.NewConns(connections, http2, port.ConnLimits{All: 4, Each: 2})
	return conns, conns.Listener(l)
}

// connect returns both ends of a connection from an address.
func connect(t *testing.T, l net.Listener, from string) (client net.Conn, server *port.Conn) {
	t.Helper()
	client = dial(t, l, from)
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server, ok := accepted.(*port.Conn)
	if !ok {
		t.Fatalf("got a %T from Accept, want a *port.Conn", accepted)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func dial(t *testing.T, l net.Listener, from string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// wantClosed fails the test unless the other end of a connection is closed, or is open if closed is
// false.
func wantClosed(t *testing.T, c net.Conn, closed bool) {
	t.Helper()
	wait := time.Minute
	if !closed {
		wait = time.Millisecond // a wrong close has happened before this call
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	if ended := errors.Is(err, io.EOF) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded); ended != closed {
		t.Errorf("got closed %t (%v), want %t", ended, err, closed)
	}
}

func wantOpen(t *testing.T, conns *port.Conns, n int) {
	t.Helper()
	if got := conns.Open(); got != n {
		t.Errorf("got %d open connections, want %d", got, n)
	}
}

// A client above its limit loses the connection that has been idle for longest. Other clients lose
// none.
func TestThreatConnectionsOfOneClient(t *testing.T) {
	conns, l := listen(t, port.ConnLimits{All: 10, Each: 3}, port.ConnLimits{All: 10, Each: 10})
	other, _ := connect(t, l, "127.0.0.1")
	works, working := connect(t, l, "127.0.0.2")
	stalls, _ := connect(t, l, "127.0.0.2")
	younger, _ := connect(t, l, "127.0.0.2")
	working.Deciding()()
	busy, deciding := connect(t, l, "127.0.0.2")
	wantOpen(t, conns, 4)
	wantClosed(t, stalls, true)
	done := deciding.Deciding()
	next, nextDeciding := connect(t, l, "127.0.0.2")
	wantClosed(t, younger, true)
	working.Deciding()
	nextDeciding.Deciding()

	refused := dial(t, l, "127.0.0.2") // requests are being decided on all three
	let, _ := connect(t, l, "127.0.0.1")
	wantClosed(t, refused, true)
	for _, c := range []net.Conn{other, works, busy, next, let} {
		wantClosed(t, c, false)
	}
	wantOpen(t, conns, 5)
	done()
	_, _ = connect(t, l, "127.0.0.2")
	wantClosed(t, busy, true)
}

// At the limit for all clients, the client with the most connections loses one, and a client with
// few gets a new one.
func TestThreatConnectionsOfAllClients(t *testing.T) {
	conns, l := listen(t, port.ConnLimits{All: 6, Each: 5}, port.ConnLimits{All: 10, Each: 10})
	var theirs []net.Conn
	for range 5 {
		c, deciding := connect(t, l, "127.0.0.2")
		deciding.Deciding()
		theirs = append(theirs, c)
	}
	first, _ := connect(t, l, "127.0.0.1")
	second, deciding := connect(t, l, "127.0.0.1")
	deciding.Deciding()
	wantClosed(t, theirs[0], true) // although a request is being decided on it
	wantClosed(t, first, false)
	third, deciding := connect(t, l, "127.0.0.1")
	deciding.Deciding()
	wantClosed(t, theirs[1], true)
	_, _ = connect(t, l, "127.0.0.1") // now both have three, so the client loses one of its own
	wantClosed(t, first, true)
	for _, c := range append(theirs[2:], second, third) {
		wantClosed(t, c, false)
	}
	wantOpen(t, conns, 6)
}

// HTTP/2 connections have a limit of their own. Each counts once, and no longer after it is closed.
func TestThreatConnectionsOverHTTP2(t *testing.T) {
	conns, l := listen(t, port.ConnLimits{All: 10, Each: 10}, port.ConnLimits{All: 2, Each: 2})
	plain, _ := connect(t, l, "127.0.0.2")
	first, a := connect(t, l, "127.0.0.2")
	second, b := connect(t, l, "127.0.0.2")
	third, c := connect(t, l, "127.0.0.2")
	for range 2 {
		if !a.HTTP2() || !b.HTTP2() {
			t.Error("below the limit: got false from HTTP2, want true")
		}
	}
	b.Deciding()
	if !c.HTTP2() {
		t.Error("at the limit with an idle connection: got false from HTTP2, want true")
	}
	c.Deciding()
	wantClosed(t, first, true)
	wantClosed(t, plain, false)
	_, d := connect(t, l, "127.0.0.2")
	if d.HTTP2() {
		t.Error("at the limit with no idle connection: got true from HTTP2, want false")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	wantClosed(t, second, false)
	wantClosed(t, third, false)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, e := connect(t, l, "127.0.0.2"); !e.HTTP2() {
		t.Error("after a close: got false from HTTP2, want true")
	}
	wantOpen(t, conns, 3)
}

// hello returns the first bytes of a ClientHello.
func hello(t *testing.T, bytes int) []byte {
	t.Helper()
	protocols := make([]string, bytes/8+1)
	for i := range protocols {
		protocols[i] = "padding"
	}
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		_ = tls.Client(server, &tls.Config{ServerName: "x", NextProtos: protocols, MinVersion: tls.VersionTLS13}).
			HandshakeContext(t.Context())
		server.Close()
	}()
	whole := make([]byte, bytes)
	if _, err := io.ReadFull(client, whole); err != nil {
		t.Fatal(err)
	}
	return whole
}

// A handshake of more than 16 KiB fails, whatever length it claims. Data after the handshake has no
// such limit.
func TestThreatLongHandshakes(t *testing.T) {
	_, l := listen(t, port.ConnLimits{All: 10, Each: 10}, port.ConnLimits{All: 10, Each: 10})
	excessive, stalled := connect(t, l, "127.0.0.2")
	long := hello(t, 20<<10)
	go func() {
		_, _ = excessive.Write(long)
		excessive.Close()
	}()
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: port.BeginHandshake}
	err := tls.Server(stalled, config).HandshakeContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "16 KiB") {
		t.Errorf("a handshake of 20 KiB: got %v, want an error that names 16 KiB", err)
	}

	ca, err := tlstest.NewCA("server")
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.Issue(pkix.Name{CommonName: "server"})
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{own.TLS}
	usual, server := connect(t, l, "127.0.0.2")
	go func() {
		client := tls.Client(usual, &tls.Config{
			RootCAs: ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13,
		})
		_, _ = client.Write(make([]byte, 100<<10))
	}()
	if _, err := io.ReadFull(tls.Server(server, config), make([]byte, 100<<10)); err != nil {
		t.Errorf("reading 100 KiB after a handshake: got %v, want nil", err)
	}
}

// The number of handshakes of more than 4 KiB is limited: a new one evicts the oldest. Shorter
// handshakes do not count.
func TestThreatLongHandshakesOfOneClient(t *testing.T) {
	_, l := listen(t, port.ConnLimits{All: 10, Each: 10}, port.ConnLimits{All: 10, Each: 10})
	begin := func(bytes int) (client net.Conn, ended chan error) {
		client, server := connect(t, l, "127.0.0.2")
		if _, err := client.Write(make([]byte, bytes)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, make([]byte, bytes)); err != nil {
			t.Fatal(err)
		}
		ended = make(chan error, 1)
		go func() {
			_, err := server.Read(make([]byte, 1))
			ended <- err
		}()
		return client, ended
	}
	short, _ := begin(4<<10 - 1)
	first, ended := begin(4<<10 + 1)
	second, _ := begin(4<<10 + 1)
	third, _ := begin(4<<10 + 1)
	if wantClosed(t, first, true); t.Failed() {
		return
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the oldest handshake: got %v, want net.ErrClosed", err)
	}
	for _, c := range []net.Conn{short, second, third} {
		wantClosed(t, c, false)
	}
}
