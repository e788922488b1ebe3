package registry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A server that a certificate names and that hangs, before its answer or within it, does not use up
// the time of the whole fetch: the certificate may name another server.
func TestThreatResponderThatHangs(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"within the answer": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer(w)
				<-r.Context().Done()
			}))
			t.Cleanup(server.Close)
			r := NewResponders(nil, time.Now)
			if r.timeout != responderTimeout {
				t.Fatalf("got requests of at most %s, want %s", r.timeout, responderTimeout)
			}
			r.timeout = 50 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := r.Get(ctx, server.URL+"/ca.crl", 100)
			if f := trust.AsFault(err, ""); err == nil || f.Reason != v1alpha1.ReasonTimeout || ctx.Err() != nil {
				t.Errorf("got %v, and %v for the whole fetch, want a timeout of the request alone", err, ctx.Err())
			}
		})
	}
}
