package testenv

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// A forwarder passes connections on to a server, so that the server can be cut off and come back with what it holds
// in memory. Of several servers it takes one after the other, whether it listens or not, as a Service does.
type forwarder struct {
	address  string
	accepted atomic.Int64

	mu       sync.Mutex
	targets  []string
	listener net.Listener // nil while cut off
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup

	// passing is held by who holds back what is sent.
	passing sync.RWMutex
}

// passed writes to a connection while nobody holds that back.
type passed struct {
	net.Conn
	passing *sync.RWMutex
}

func (p passed) Write(b []byte) (int, error) {
	p.passing.RLock()
	defer p.passing.RUnlock()
	return p.Conn.Write(b)
}

// forward listens on a free loopback port, which stays free for it while it is cut off.
func forward(targets ...string) (*forwarder, error) { return forwardAt("127.0.0.1", targets...) }

// forwardAt listens on a free port of an address of this machine.
func forwardAt(host string, targets ...string) (*forwarder, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	f := &forwarder{address: net.JoinHostPort(host, strconv.Itoa(port)), targets: targets, conns: make(map[net.Conn]struct{})}
	return f, f.connect()
}

// connect listens, on the same port as before.
func (f *forwarder) connect() error {
	l, err := net.Listen("tcp", f.address)
	if err != nil {
		return fmt.Errorf("listening for the forwarder: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.address, f.listener = l.Addr().String(), l
	f.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.accepted.Add(1)
			f.wg.Go(func() { f.pass(conn) })
		}
	})
	return nil
}

// disconnect refuses new connections and drops those that are open.
func (f *forwarder) disconnect() {
	f.mu.Lock()
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	f.mu.Unlock()
	f.drop()
	f.wg.Wait()
}

// drop closes the connections that are open.
func (f *forwarder) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		conn.Close()
	}
}

func (f *forwarder) pass(in net.Conn) {
	defer in.Close()
	out := f.dial()
	if out == nil {
		return
	}
	defer out.Close()
	if !f.track(in, out) {
		return
	}
	defer f.forget(in, out)
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(passed{out, &f.passing}, in)
		out.Close()
		close(done)
	}()
	_, _ = io.Copy(passed{in, &f.passing}, out)
	in.Close()
	<-done
}

// serve has connections passed on to these servers.
func (f *forwarder) serve(targets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := len(targets) == len(f.targets) && !slices.ContainsFunc(targets, func(t string) bool { return !slices.Contains(f.targets, t) })
	if !same { // or each would always have its turn as the first
		f.targets = targets
	}
}

// dial returns a connection to the server whose turn it is; nil: it does not listen.
func (f *forwarder) dial() net.Conn {
	f.mu.Lock()
	targets := slices.Clone(f.targets)
	if len(targets) > 1 {
		f.targets = append(targets[1:len(targets):len(targets)], targets[0])
	}
	f.mu.Unlock()
	if len(targets) == 0 {
		return nil
	}
	out, err := net.Dial("tcp", targets[0])
	if err != nil {
		return nil
	}
	return out
}

// track remembers connections so that disconnect can drop them; it reports false where that has happened already.
func (f *forwarder) track(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener == nil {
		return false
	}
	for _, c := range conns {
		f.conns[c] = struct{}{}
	}
	return true
}

func (f *forwarder) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}
