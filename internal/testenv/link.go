package testenv

import (
	"strings"
	"testing"
)

// Link is the way from a manager to the API server, which can be cut without either of them being told.
type Link struct {
	// URL is for ManagerOptions.APIServer.
	URL  string
	to   *forwarder
	held bool
}

// RunLink runs a link until the test ends.
func RunLink(t testing.TB, k *Kube) *Link {
	t.Helper()
	to, err := forward(strings.TrimPrefix(k.Config.Host, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{URL: "https://" + to.address, to: to}
	t.Cleanup(func() {
		l.Mend()
		to.disconnect()
	})
	return l
}

// Cut holds back all that is sent from now on, as a network does that loses it: connections stay open and say nothing.
func (l *Link) Cut() {
	if !l.held {
		l.to.passing.Lock()
		l.held = true
	}
}

// Mend lets new connections through. Those from before are dropped with all that was held back.
func (l *Link) Mend() {
	if l.held {
		l.held = false
		l.to.drop()
		l.to.passing.Unlock()
	}
}
