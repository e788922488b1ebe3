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

// ConnLimits bound connections: All together, and Each client's. Both must be positive.
type ConnLimits struct{ All, Each int }

// socketBuffer bounds what the kernel holds of a connection that was not read, or not sent, in
// bytes. By itself it would hold megabytes, which count as the container's memory.
const socketBuffer = 64 << 10

// What is read of a connection before its TLS handshake is done, in bytes. Parsing it takes more
// than ten times as much.
const (
	// maxHandshake bounds it.
	maxHandshake = 16 << 10
	// usualHandshake is what any number of connections may send. An API server sends about 2 KiB,
	// and 1 to 2 KiB more with a client certificate.
	usualHandshake = 4 << 10
)

var errLongHandshake = errors.New("the client sent more than 16 KiB before the handshake was done")

// Conns are the connections that are open. It is safe for concurrent use.
type Conns struct {
	// any holds all connections, and http2 those of them over which requests come by HTTP/2, each
	// of which can carry many. handshakes holds those that have sent more than usualHandshake bytes
	// of a handshake that is not done.
	any, http2, handshakes table
}

// DefaultConnLimits are 2048 connections, half of them for each client, and the bounds for HTTP/2
// and for long handshakes. An API server opens one connection for each request that is under way
// over HTTP/1.1, of which it has 600 at most by default, and over HTTP/2 one for each 100.
func DefaultConnLimits() (connections, http2, handshakes ConnLimits) {
	return ConnLimits{All: 2048, Each: 1024}, ConnLimits{All: 128, Each: 64}, ConnLimits{All: 256, Each: 64}
}

// NewConns returns connections, of which there are none yet, with bounds for all of them, for those
// over HTTP/2, and for those in a TLS handshake of more than 4 KiB. The last holds, and no
// handshake is longer than 16 KiB, where the server's tls.Config has BeginHandshake.
func NewConns(connections, http2, handshakes ConnLimits) *Conns {
	make1 := func(limits ConnLimits) table {
		return table{limits: limits, clients: make(map[string]map[*Conn]struct{})}
	}
	return &Conns{any: make1(connections), http2: make1(http2), handshakes: make1(handshakes)}
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
	// served is when the last request was decided on that came by it, and at first when it was
	// accepted, in Unix nanoseconds.
	served atomic.Int64
	// deciding is how many requests are being decided on.
	deciding      atomic.Int32
	http2, closed atomic.Bool

	// handshake is the context of the TLS handshake, from the ClientHello on.
	handshake atomic.Pointer[context.Context]
	// read is how many bytes were read before the handshake was done, and then shaken is set. Only
	// Read uses them.
	read   int
	shaken bool
}

// Listener returns a listener for the connections of l. A connection over the bound is let in where
// another can be closed for it, and else closed. Of the same client, that is one over which no
// request is being decided on; of all, one of the client that has the most. Of these it is the one
// over which nothing was decided on for longest, so that whoever stalls goes before whoever works.
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
			_ = tcp.SetReadBuffer(socketBuffer) // where it is closed already, that comes to light
			_ = tcp.SetWriteBuffer(socketBuffer)
		}
		now := time.Now()
		c := &Conn{Conn: accepted, conns: l.conns, client: Client(accepted.RemoteAddr().String()), accepted: now}
		c.served.Store(now.UnixNano())
		if l.conns.any.add(c) {
			return c, nil
		}
		_ = accepted.Close() // nothing has come over it
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

// Read implements net.Conn. It fails where a handshake would take more than maxHandshake bytes.
func (c *Conn) Read(p []byte) (int, error) {
	if c.shaken {
		return c.Conn.Read(p)
	}
	if handshake := c.handshake.Load(); handshake != nil && (*handshake).Err() != nil {
		c.shaken = true
		c.conns.handshakes.remove(c)
		return c.Conn.Read(p)
	}
	limit := maxHandshake
	switch {
	case c.read >= maxHandshake:
		return 0, errLongHandshake
	case c.read < usualHandshake:
		limit = usualHandshake
	case c.read == usualHandshake && !c.counted(&c.conns.handshakes):
		return 0, errLongHandshake
	}
	n, err := c.Conn.Read(p[:min(len(p), limit-c.read)])
	c.read += n
	return n, err
}

// BeginHandshake is for GetConfigForClient of the tls.Config of a server, and changes nothing about
// it. The connection learns by it when its handshake is done: the context of the handshake is then
// over.
func BeginHandshake(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if c, ok := hello.Conn.(*Conn); ok {
		c.handshake.Store(new(hello.Context()))
	}
	return nil, nil
}

// Accepted returns since when the connection is there.
func (c *Conn) Accepted() time.Time { return c.accepted }

// HTTP2 counts the connection among those over HTTP/2, once. It reports whether there is room for
// it; where there is not, the connection is to be closed.
func (c *Conn) HTTP2() bool {
	if c.http2.Swap(true) {
		return true
	}
	return c.counted(&c.conns.http2)
}

// counted adds the connection to a table, and reports whether there is room for it.
func (c *Conn) counted(t *table) bool {
	ok := t.add(c)
	if c.closed.Load() {
		t.remove(c) // Close may have looked for it before it was there
	}
	return ok
}

// Deciding says that a request that has come by the connection is being decided on, until the
// function is called that it returns.
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

// add lets a connection in, and closes another one where that makes room for it.
func (t *table) add(c *Conn) bool {
	t.mu.Lock()
	victim, ok := t.room(c)
	if victim != nil {
		t.drop(victim) // here, so that the bound holds while its Close is under way
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

// room returns whether there is room for a connection, once another has been closed.
func (t *table) room(c *Conn) (victim *Conn, ok bool) {
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

// longestUnserved returns the connection over which nothing was decided on for longest, but for
// those over which something is now, unless they count too.
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

// remove takes a connection out, where it is there.
func (t *table) remove(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

// drop is remove with the mutex held.
func (t *table) drop(c *Conn) {
	own := t.clients[c.client]
	if _, there := own[c]; !there {
		return
	}
	delete(own, c)
	if t.all--; len(own) == 0 {
		delete(t.clients, c.client)
	}
}

type connKey struct{}

// WithConn returns a context for the requests of a connection that a listener of Conns has
// accepted, over TLS or not.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	if c, ok := c.(*Conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// ConnOf returns the connection of a request, nil where it is not known.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}
