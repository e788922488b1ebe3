package process

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFreePortIsFreeOnAllAddresses checks that a server can listen on the port on all addresses,
// and that no other socket can bind it on any of them.
func TestFreePortIsFreeOnAllAddresses(t *testing.T) {
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range [][4]byte{{127, 0, 0, 1}, {127, 0, 0, 2}} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: other, Port: port})
		if unix.Close(fd); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("binding another socket to the port at %v: got %v, want address in use", other, err)
		}
	}
	for _, host := range []string{"", "127.0.0.1"} {
		for range 2 { // a server restarts on its port
			l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
			if err != nil {
				t.Fatalf("the server cannot listen on the port at %q: %v", host, err)
			}
			l.Close()
		}
	}
}
