package kubeserver

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/forward"
)

// Link is the way from a manager to the API server, which can be cut without either of them being
// told.
type Link struct {
	// URL is where a manager reaches the API server by the link.
	URL  string
	to   *forward.Forwarder
	held bool
}

// RunLink runs a link until the test ends.
func RunLink(t testing.TB, k *Server) *Link {
	t.Helper()
	to, err := forward.To(strings.TrimPrefix(k.Config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{URL: "https://" + to.Address, to: to}
	t.Cleanup(func() {
		l.Mend()
		to.Disconnect()
	})
	return l
}

// Cut holds back all that is sent from now on, as a network does that loses it: connections stay
// open and say nothing.
func (l *Link) Cut() {
	if !l.held {
		l.to.Hold()
		l.held = true
	}
}

// Mend lets new connections through. Those from before are dropped with all that was held back.
func (l *Link) Mend() {
	if l.held {
		l.held = false
		l.to.Release()
	}
}
