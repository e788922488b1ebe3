package notaryserver

import (
	"strings"
	"testing"
)

// TestNotaryAtAnotherAddress uses 127.0.0.2: on Linux all of 127.0.0.0/8 is loopback.
func TestNotaryAtAnotherAddress(t *testing.T) {
	const host = "127.0.0.2"
	n := Run(t, Options{Host: host})
	if !strings.HasPrefix(n.URL, "https://"+host+":") {
		t.Errorf("the URL is %s, want host %s", n.URL, host)
	}
	if err := RunClient(t, n).Init(t.Context(), gun); err != nil {
		t.Errorf("a client cannot publish: %v", err)
	}
}
