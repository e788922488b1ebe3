package port

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ConnLimits limit the number of connections: All in total, Each per client. Both must be positive.
type ConnLimits struct{ All, Each int }

// socketBuffer limits how much of a connection the kernel buffers in each direction, in bytes. By
// default it would buffer megabytes, which count as memory of the container.
const socketBuffer = 64 << 10

// How many bytes are read of a connection before its TLS handshake is done. To parse them takes
// more than ten times as much memory.
const (
	// maxHandshake is the limit for any connection.
	maxHandshake = 16 << 10
	// usualHandshake is the limit above which the handshake table counts a connection. An API
	// server sends about 2 KiB, and 1 to 2 KiB more with a client certificate.
	usualHandshake = 4 << 10
)

var errLongHandshake = errors.New("the client sent more than 16 KiB before the handshake was done")

// Conns are the open connections. It is safe for concurrent use.
type Conns struct {
	// any holds all connections. http2 holds those with requests over HTTP/2, each of which can
	// carry many requests. handshakes holds those that have sent more than usualHandshake bytes of
	// an unfinished handshake.
	any, http2, handshakes table
}

// DefaultConnLimits are 2048 connections, half of them per client, and the limits for HTTP/2 and
// for long handshakes. Over HTTP/1.1 an API server opens one connection for each request in flight,
// by default at most 600. Over HTTP/2 it opens one for every 100.
func DefaultConnLimits() (connections, http2, handshakes ConnLimits) {
	return ConnLimits{All: 2048, Each: 1024}, ConnLimits{All: 128, Each: 64}, ConnLimits{All: 256, Each: 64}
}

// NewConns returns an empty set of connections. The limits are for all of them, for those over
// HTTP/2, and for those with an unfinished TLS handshake of more than 4 KiB. The last limit, and
// the maximum of 16 KiB for a handshake, need BeginHandshake in the tls.Config of the server.
func NewConns(connections, http2, handshakes ConnLimits) *Conns {
	newTable := func(limits ConnLimits) table {
		return table{limits: limits, clients: make(map[string]map[*Conn]struct{})}
	}
	return &Conns{any: newTable(connections), http2: newTable(http2), handshakes: newTable(handshakes)}
}

// table holds connections by client.
type table struct {
	limits ConnLimits

	mu      sync.Mutex
	all     int
	clients map[string]map[*Conn]struct{}
}

// Conn is a connection of a client.
type Conn struct {
	net.Conn

	conns    *Conns
	client   string
	accepted time.Time
	close    sync.Once
	// served is the time of the last decision on a request of the connection, in Unix nanoseconds.
	// Before the first decision it is the time of accept.
	served atomic.Int64
	// deciding is how many requests of the connection are being decided.
	deciding      atomic.Int32
	http2, closed atomic.Bool

	// handshake is the context of the TLS handshake. It is set at the ClientHello.
	handshake atomic.Pointer[context.Context]
	// read is how many bytes were read before the handshake was done. handshaken says that it is
	// done. Only Read uses them.
	read       int
	handshaken bool
}

// Listener returns a listener for the connections of l. If a new connection exceeds a limit, the
// listener closes another one for it, or else the new one.
//
// If the client is at its limit, the listener closes one of the client's own connections on which
// no request is being decided. If all connections are at the limit, it closes one of the client
// with the most. Among these it closes the one whose last decision is the oldest, so that an idle
// client loses its connection before a working one.
func (c *Conns) Listener(l net.Listener) net.Listener { return &listener{l, c} }

type listener struct {
	net.Listener
	conns *Conns
}

// Accept implements net.Listener. It returns a *Conn.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if tcp, ok := accepted.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(socketBuffer) // it fails on a closed connection, and so will the next Read
			_ = tcp.SetWriteBuffer(socketBuffer)
		}
		now := time.Now()
		c := &Conn{Conn: accepted, conns: l.conns, client: Client(accepted.RemoteAddr().String()), accepted: now}
		c.served.Store(now.UnixNano())
		if l.conns.any.add(c) {
			return c, nil
		}
		_ = accepted.Close() // nothing was read from it, so the error does not matter
	}
}

// Client returns the client of an address: its host.
func Client(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.close.Do(func() {
		c.closed.Store(true)
		c.conns.any.remove(c)
		c.conns.handshakes.remove(c)
		if c.http2.Load() {
			c.conns.http2.remove(c)
		}
	})
	return c.Conn.Close()
}

// Read implements net.Conn. It fails if a handshake needs more than maxHandshake bytes, or more
// than usualHandshake while the handshake table is full.
func (c *Conn) Read(p []byte) (int, error) {
	if c.handshaken {
		return c.Conn.Read(p)
	}
	if handshake := c.handshake.Load(); handshake != nil && (*handshake).Err() != nil {
		c.handshaken = true
		c.conns.handshakes.remove(c)
		return c.Conn.Read(p)
	}
	limit := maxHandshake
	switch {
	case c.read >= maxHandshake:
		return 0, errLongHandshake
	case c.read < usualHandshake:
		limit = usualHandshake
	case c.read == usualHandshake && !c.addTo(&c.conns.handshakes):
		return 0, errLongHandshake
	}
	n, err := c.Conn.Read(p[:min(len(p), limit-c.read)])
	c.read += n
	return n, err
}

// BeginHandshake is a GetConfigForClient for the tls.Config of a server. It does not change the
// configuration. It gives the connection the context of its handshake, which ends when the
// handshake is done.
func BeginHandshake(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if c, ok := hello.Conn.(*Conn); ok {
		c.handshake.Store(new(hello.Context()))
	}
	return nil, nil
}

// Accepted returns when the connection was accepted.
func (c *Conn) Accepted() time.Time { return c.accepted }

// HTTP2 counts the connection, once, among those over HTTP/2. If it returns false, the limit is
// reached and the caller must close the connection.
func (c *Conn) HTTP2() bool {
	if c.http2.Swap(true) {
		return true
	}
	return c.addTo(&c.conns.http2)
}

// addTo adds the connection to a table, and reports whether the limits of the table allow it.
func (c *Conn) addTo(t *table) bool {
	ok := t.add(c)
	if c.closed.Load() {
		t.remove(c) // Close may have run before the connection was in the table
	}
	return ok
}

// Deciding marks that a request of the connection is being decided, until done is called.
func (c *Conn) Deciding() (done func()) {
	c.deciding.Add(1)
	return func() {
		c.served.Store(time.Now().UnixNano())
		c.deciding.Add(-1)
	}
}

// Open returns how many connections are open.
func (c *Conns) Open() int {
	c.any.mu.Lock()
	defer c.any.mu.Unlock()
	return c.any.all
}

// add inserts a connection, and closes another one for it if the table is full. It reports whether
// it inserted c.
func (t *table) add(c *Conn) bool {
	t.mu.Lock()
	victim, ok := t.victimFor(c)
	if victim != nil {
		t.drop(victim) // before Close, so that the limit holds while Close runs
	}
	if ok {
		t.insert(c)
	}
	t.mu.Unlock()
	if victim != nil {
		_ = victim.Close()
	}
	return ok
}

// victimFor reports whether a connection can be inserted. A victim that is not nil must be closed
// first.
func (t *table) victimFor(c *Conn) (victim *Conn, ok bool) {
	own := t.clients[c.client]
	if len(own) >= t.limits.Each {
		victim = longestUnserved(own, false)
		return victim, victim != nil
	}
	if t.all < t.limits.All {
		return nil, true
	}
	most := own
	for _, theirs := range t.clients {
		if len(theirs) > len(most) {
			most = theirs
		}
	}
	if victim = longestUnserved(most, false); victim == nil && len(most) > len(own)+1 {
		victim = longestUnserved(most, true)
	}
	return victim, victim != nil
}

// longestUnserved returns the connection whose last decision is the oldest. It skips connections on
// which a request is being decided, unless deciding is set.
func longestUnserved(of map[*Conn]struct{}, deciding bool) *Conn {
	var found *Conn
	for c := range of {
		if (deciding || c.deciding.Load() == 0) && (found == nil || c.served.Load() < found.served.Load()) {
			found = c
		}
	}
	return found
}

func (t *table) insert(c *Conn) {
	if t.clients[c.client] == nil {
		t.clients[c.client] = make(map[*Conn]struct{})
	}
	t.clients[c.client][c] = struct{}{}
	t.all++
}

// remove removes a connection, if it is in the table.
func (t *table) remove(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

// drop is remove for a caller that holds the mutex.
func (t *table) drop(c *Conn) {
	own := t.clients[c.client]
	if _, ok := own[c]; !ok {
		return
	}
	delete(own, c)
	if t.all--; len(own) == 0 {
		delete(t.clients, c.client)
	}
}

type connKey struct{}

// WithConn returns a context for the requests of a connection. The connection comes from a listener
// of Conns, with or without TLS on top.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if c, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// ConnOf returns the connection of a request, nil if the context has none.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}
