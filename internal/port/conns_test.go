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

// listen returns connections, and a listener for them on loopback.
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
		t.Fatalf("accepted a %T", accepted)
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

// open reports whether the other end of a connection is open.
func open(t *testing.T, c net.Conn, closed bool) {
	t.Helper()
	wait := time.Minute
	if !closed {
		wait = time.Millisecond // it was closed before this is called, or not at all
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	if ended := errors.Is(err, io.EOF) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded); ended != closed {
		t.Errorf("closed %t (%v), want %t", ended, err, closed)
	}
}

func wantOpen(t *testing.T, conns *port.Conns, n int) {
	t.Helper()
	if got := conns.Open(); got != n {
		t.Errorf("%d connections are open, want %d", got, n)
	}
}

// A client beyond its bound loses the connection that has been of no use for longest, and others
// lose none.
func TestThreatConnectionsOfOneClient(t *testing.T) {
	conns, l := listen(t, port.ConnLimits{All: 10, Each: 3}, port.ConnLimits{All: 10, Each: 10})
	other, _ := connect(t, l, "127.0.0.1")
	works, working := connect(t, l, "127.0.0.2")
	stalls, _ := connect(t, l, "127.0.0.2")
	younger, _ := connect(t, l, "127.0.0.2")
	working.Deciding()()
	busy, deciding := connect(t, l, "127.0.0.2")
	wantOpen(t, conns, 4)
	open(t, stalls, true)
	done := deciding.Deciding()
	next, nextDeciding := connect(t, l, "127.0.0.2")
	open(t, younger, true)
	working.Deciding()
	nextDeciding.Deciding()

	refused := dial(t, l, "127.0.0.2") // all three are at work
	let, _ := connect(t, l, "127.0.0.1")
	open(t, refused, true)
	for _, c := range []net.Conn{other, works, busy, next, let} {
		open(t, c, false)
	}
	wantOpen(t, conns, 5)
	done()
	_, _ = connect(t, l, "127.0.0.2")
	open(t, busy, true)
}

// Where all connections are taken, whoever has most of them loses one, and whoever has few is let
// in.
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
	open(t, theirs[0], true) // though a request of it is being decided on
	open(t, first, false)
	third, deciding := connect(t, l, "127.0.0.1")
	deciding.Deciding()
	open(t, theirs[1], true)
	_, _ = connect(t, l, "127.0.0.1") // now both have three, and one of its own goes
	open(t, first, true)
	for _, c := range append(theirs[2:], second, third) {
		open(t, c, false)
	}
	wantOpen(t, conns, 6)
}

// Connections over HTTP/2 are bounded by themselves; a connection counts once, and not after its
// end.
func TestThreatConnectionsOverHTTP2(t *testing.T) {
	conns, l := listen(t, port.ConnLimits{All: 10, Each: 10}, port.ConnLimits{All: 2, Each: 2})
	plain, _ := connect(t, l, "127.0.0.2")
	first, a := connect(t, l, "127.0.0.2")
	second, b := connect(t, l, "127.0.0.2")
	third, c := connect(t, l, "127.0.0.2")
	for range 2 {
		if !a.HTTP2() || !b.HTTP2() {
			t.Error("no room")
		}
	}
	b.Deciding()
	if !c.HTTP2() {
		t.Error("no room, though one stalls")
	}
	c.Deciding()
	open(t, first, true)
	open(t, plain, false)
	_, d := connect(t, l, "127.0.0.2")
	if d.HTTP2() {
		t.Error("room, though all are at work")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	open(t, second, false)
	open(t, third, false)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, e := connect(t, l, "127.0.0.2"); !e.HTTP2() {
		t.Error("no room after an end")
	}
	wantOpen(t, conns, 3)
}

// hello is a ClientHello of at least some bytes.
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

// A handshake takes 16 KiB at most, whatever it claims, and what follows on it is not bounded.
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
		t.Errorf("the handshake ended with %v", err)
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
		shaken := tls.Client(usual, &tls.Config{
			RootCAs: ca.Pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13,
		})
		_, _ = shaken.Write(make([]byte, 100<<10))
	}()
	if _, err := io.ReadFull(tls.Server(server, config), make([]byte, 100<<10)); err != nil {
		t.Errorf("what follows on a handshake: %v", err)
	}
}

// Handshakes of more than 4 KiB are bounded in number, and the oldest gives way. Shorter ones are
// not.
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
	if open(t, first, true); t.Failed() {
		return
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the oldest one ended with %v", err)
	}
	for _, c := range []net.Conn{short, second, third} {
		open(t, c, false)
	}
}
