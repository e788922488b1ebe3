package notaryserver

import (
	"strings"
	"testing"
)

// On Linux all of 127.0.0.0/8 is loopback, so that an address beside the usual one needs no
// network.
func TestNotaryAtAnotherAddress(t *testing.T) {
	const host = "127.0.0.2"
	n := Run(t, Options{Host: host})
	if !strings.HasPrefix(n.URL, "https://"+host+":") {
		t.Errorf("the URL is %s, want host %s", n.URL, host)
	}
	if err := RunClient(t, n).Init(t.Context(), gun); err != nil {
		t.Errorf("a client does not get through: %v", err)
	}
}
