package testenv

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// A forwarder passes connections on to a server, so that the server can be cut off and come back with what it holds
// in memory.
type forwarder struct {
	address, target string

	mu       sync.Mutex
	listener net.Listener // nil while cut off
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup
}

// forward listens on a free loopback port.
func forward(target string) (*forwarder, error) {
	f := &forwarder{address: "127.0.0.1:0", target: target, conns: make(map[net.Conn]struct{})}
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
	for conn := range f.conns {
		conn.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *forwarder) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", f.target)
	if err != nil {
		return
	}
	defer out.Close()
	if !f.track(in, out) {
		return
	}
	defer f.forget(in, out)
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(out, in)
		out.Close()
		close(done)
	}()
	_, _ = io.Copy(in, out)
	in.Close()
	<-done
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
