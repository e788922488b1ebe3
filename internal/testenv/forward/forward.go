// Package forward forwards TCP connections to servers. A test can refuse them, drop them, or hold
// back their data, and can balance them over several servers.
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

// A Forwarder forwards connections to a server. A test can cut the server off and connect it again
// without a restart, so the server keeps its memory. With several servers the Forwarder uses them
// round-robin, whether they listen or not, as a Service does.
type Forwarder struct {
	// Address is the host and port on which it listens.
	Address  string
	accepted atomic.Int64

	mu       sync.Mutex
	targets  []string
	listener net.Listener // nil while disconnected
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup

	// hold is locked for writing while Hold is in effect.
	hold sync.RWMutex
}

// holdable is a connection whose writes wait while Hold is in effect.
type holdable struct {
	net.Conn
	hold *sync.RWMutex
}

func (c holdable) Write(b []byte) (int, error) {
	c.hold.RLock()
	defer c.hold.RUnlock()
	return c.Conn.Write(b)
}

// To listens on a free loopback port. The port stays reserved while the Forwarder is disconnected.
func To(targets ...string) (*Forwarder, error) { return At("127.0.0.1", targets...) }

// At listens on a free port of an address of this machine. Like To, it keeps the port reserved.
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

// Connect listens on the same port as before.
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
			f.wg.Go(func() { f.forward(conn) })
		}
	})
	return nil
}

// Accepted returns the number of connections accepted since the start.
func (f *Forwarder) Accepted() int64 { return f.accepted.Load() }

// Hold holds back all data, in both directions, until Release. Connections stay open.
func (f *Forwarder) Hold() { f.hold.Lock() }

// Release ends a Hold. It closes the open connections and discards the data that was held back.
func (f *Forwarder) Release() {
	f.Drop()
	f.hold.Unlock()
}

// Disconnect refuses new connections and drops the open ones.
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

// Drop closes the open connections.
func (f *Forwarder) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		conn.Close()
	}
}

// forward copies data in both directions until either side closes.
func (f *Forwarder) forward(in net.Conn) {
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
		_, _ = io.Copy(holdable{out, &f.hold}, in)
		out.Close()
		close(done)
	}()
	_, _ = io.Copy(holdable{in, &f.hold}, out)
	in.Close()
	<-done
}

// Serve replaces the servers that new connections go to.
func (f *Forwarder) Serve(targets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := len(targets) == len(f.targets) &&
		!slices.ContainsFunc(targets, func(t string) bool { return !slices.Contains(f.targets, t) })
	if !same { // a new order would restart the rotation at each call
		f.targets = targets
	}
}

// dial connects to the next server in the rotation. It returns nil if that server does not listen,
// or there is none.
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

// track records connections so that Drop can close them. It returns false if the Forwarder has been
// disconnected meanwhile.
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
