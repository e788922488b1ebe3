package notaryserver

import (
	"net/http"
	"testing"

	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
)

func TestTokenServiceFaults(t *testing.T) {
	n := Run(t, Options{Auth: &Auth{Username: "reader", Password: "secret"}})
	c := RunClient(t, n)
	n.SetTokenFaults(faultproxy.Fault{Status: http.StatusServiceUnavailable})
	if err := c.Init(t.Context(), gun); err == nil {
		t.Error("init succeeded without a token, want an error")
	}
	n.SetTokenFaults()
	if err := RunClient(t, n).Init(t.Context(), gun); err != nil {
		t.Error(err)
	}
}
