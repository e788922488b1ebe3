package registry

import (
	"errors"
	"testing"

	"github.com/countersign-dev/countersign/internal/trust"
)

// TestThreatRefusalIsNoOutage reads faults by the status of a server and of its token service: only
// 429 and 5xx say that it could not be queried. An older answer about a tag must not count after a
// refusal.
func TestThreatRefusalIsNoOutage(t *testing.T) {
	ca := newCA(t)
	for status, want := range map[int]bool{
		400: false, 401: false, 403: false, 404: false, 405: false, 408: false, 410: false, 418: false, 451: false,
		429: true, 500: true, 502: true, 503: true, 504: true,
	} {
		refusing := serve(t, ca, answer(status, "application/json", `{}`))
		guardedServer := serve(t, ca, guarded(bearer(refusing.URL)))
		for name, c := range map[string]*Client{
			"server": newClient(t, Config{Server: refusing.URL, CABundle: string(ca.PEM)}),
			"token service": newClient(t, Config{
				Server: guardedServer.URL, CABundle: string(ca.PEM), TokenServices: []string{refusing.Host},
			}),
		} {
			_, err := c.Get(t.Context(), repository, file, 100)
			f, ok := errors.AsType[*trust.Fault](err)
			if !ok || f.Unavailable() != want {
				t.Errorf("%s with status %d: got %v, want a fault of a server that could not be queried: %t", name,
					status, err, want)
			}
		}
	}
}
