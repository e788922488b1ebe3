package kubeserver

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/forward"
)

// Link is a network path from a manager to the API server. A test can cut it without closing a
// connection, so neither side notices.
type Link struct {
	// URL is the address of the API server through the link.
	URL     string
	forward *forward.Forwarder
	cut     bool
}

// RunLink runs a link until the test ends.
func RunLink(t testing.TB, k *Server) *Link {
	t.Helper()
	f, err := forward.To(strings.TrimPrefix(k.Config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{URL: "https://" + f.Address, forward: f}
	t.Cleanup(func() {
		l.Mend()
		f.Disconnect()
	})
	return l
}

// Cut holds back all data from now on, like a network that loses every packet. Connections stay
// open.
func (l *Link) Cut() {
	if !l.cut {
		l.forward.Hold()
		l.cut = true
	}
}

// Mend forwards new connections again. It drops the old ones with the data that was held back.
func (l *Link) Mend() {
	if l.cut {
		l.cut = false
		l.forward.Release()
	}
}
