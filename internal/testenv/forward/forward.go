// Package forward passes connections on to servers, so that a test can cut them off, hold back what
// is sent, and have several servers take turns.
package forward

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// A Forwarder passes connections on to a server, so that the server can be cut off and come back
// with what it holds in memory. Of several servers it takes one after the other, whether it listens
// or not, as a Service does.
type Forwarder struct {
	// Address is the host and port where it listens.
	Address  string
	accepted atomic.Int64

	mu       sync.Mutex
	targets  []string
	listener net.Listener // nil while cut off
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup

	// passing is held while what is sent is held back.
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

// To listens on a free loopback port, which stays free for it while it is cut off.
func To(targets ...string) (*Forwarder, error) { return At("127.0.0.1", targets...) }

// At listens on a free port of an address of this machine.
func At(host string, targets ...string) (*Forwarder, error) {
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	f := &Forwarder{
		Address: net.JoinHostPort(host, strconv.Itoa(port)), targets: targets, conns: make(map[net.Conn]struct{}),
	}
	return f, f.Connect()
}

// Connect listens, on the same port as before.
func (f *Forwarder) Connect() error {
	l, err := net.Listen("tcp", f.Address)
	if err != nil {
		return fmt.Errorf("listening for the forwarder: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Address, f.listener = l.Addr().String(), l
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

// Accepted counts the connections that it has accepted since its start.
func (f *Forwarder) Accepted() int64 { return f.accepted.Load() }

// Hold holds back all that is sent, in both directions, until Release. Connections stay open.
func (f *Forwarder) Hold() { f.passing.Lock() }

// Release ends a Hold: it closes the connections from before with all that was held back.
func (f *Forwarder) Release() {
	f.Drop()
	f.passing.Unlock()
}

// Disconnect refuses new connections and drops those that are open.
func (f *Forwarder) Disconnect() {
	f.mu.Lock()
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
	f.mu.Unlock()
	f.Drop()
	f.wg.Wait()
}

// Drop closes the connections that are open.
func (f *Forwarder) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		conn.Close()
	}
}

func (f *Forwarder) pass(in net.Conn) {
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

// Serve has connections passed on to these servers.
func (f *Forwarder) Serve(targets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := len(targets) == len(f.targets) &&
		!slices.ContainsFunc(targets, func(t string) bool { return !slices.Contains(f.targets, t) })
	if !same { // or each would always have its turn as the first
		f.targets = targets
	}
}

// dial returns a connection to the server whose turn it is; nil: it does not listen.
func (f *Forwarder) dial() net.Conn {
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

// track remembers connections so that disconnect can drop them; it reports false where that has
// happened already.
func (f *Forwarder) track(conns ...net.Conn) bool {
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

func (f *Forwarder) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}
