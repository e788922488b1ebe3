package notary

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// meet makes the requests for some roles wait for each other: they are answered only if they are in
// flight together.
func (v *virtual) meet(roles ...string) {
	var wg sync.WaitGroup
	wg.Add(len(roles))
	for _, role := range roles {
		v.serve[role] = func(w http.ResponseWriter, r *http.Request) {
			wg.Done()
			met := make(chan struct{})
			go func() { wg.Wait(); close(met) }()
			select {
			case <-met:
				_, _ = w.Write(v.current[role])
			case <-r.Context().Done():
			}
		}
	}
}

// A first fetch takes three round trips: root with timestamp, then the snapshot, then targets with
// every delegation.
func TestFetchColdRoundTrips(t *testing.T) {
	v := newVirtual(t)
	v.meet("root", "timestamp")
	v.meet("targets", "targets/ci", "targets/qa")
	wantRoles(t, signedBy(mustFetch(t, v.root(v.config()), nil), "v1"), "ci one", "qa one")
}

// A fault cancels the other requests: otherwise this test would not end.
func TestFetchStopsAtTheFirstFault(t *testing.T) {
	broken := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	for _, pair := range [][2]string{
		{"root", "timestamp"}, {"timestamp", "root"}, {"targets/qa", "targets/ci"}, {"targets", "targets/qa"},
	} {
		v := newVirtual(t)
		v.serve[pair[0]], v.serve[pair[1]] = broken, slow
		_, err := v.root(v.config()).Fetch(t.Context(), of(testGUN), nil)
		wantFault(t, err, v1alpha1.ReasonServerError, pair[0])
	}
}

// If only a sha512 is signed, the file is requested by its plain name and checked against that
// hash.
func TestFetchWithoutSHA256(t *testing.T) {
	v := newVirtual(t)
	v.bump("root")
	for name := range v.roles {
		v.mutate[name] = func(meta m) { delete(meta["hashes"].(m), "sha256") }
	}
	v.publish()
	r := v.root(v.config())
	wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
	for _, name := range v.requests() {
		if strings.Count(name, ".") != 1 {
			t.Errorf("got a request for %s", name)
		}
	}
	v.serve["targets/qa"] = v.serveResigned("targets/qa")
	_, err := r.Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "targets/qa", "sha512")
}

// A publication of which the server has only the timestamp is a fault. The earlier evidence is
// unchanged, and the next fetch succeeds.
func TestHalfWrittenPublication(t *testing.T) {
	for name, wanting := range map[string]struct {
		role   string
		status func(w http.ResponseWriter, r *http.Request)
		reason string
	}{
		"no snapshot yet":   {"snapshot", notFound, v1alpha1.ReasonMetadataMissing},
		"no delegation yet": {"targets/qa", notFound, v1alpha1.ReasonMetadataMissing},
		"half of a file": {
			"snapshot", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"signed":{`)) },
			v1alpha1.ReasonMetadataInvalid,
		},
		"half of a signature": {
			"targets/qa", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) },
			v1alpha1.ReasonMetadataInvalid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			r := v.root(v.config())
			previous := mustFetch(t, r, nil)
			v.bump("targets/qa", "snapshot", "timestamp")
			v.publish()
			v.serve[wanting.role] = wanting.status
			for _, from := range []trust.Evidence{nil, previous} {
				_, err := r.Fetch(t.Context(), of(testGUN), from)
				wantFault(t, err, wanting.reason, wanting.role)
			}
			wantRoles(t, signedBy(previous, "v1"), "ci one", "qa one")
			v.mu.Lock() // cancelled requests may still be in flight
			delete(v.serve, wanting.role)
			v.mu.Unlock()
			if next := mustFetch(t, r, previous); next == previous {
				t.Error("got the earlier evidence, want that of the complete publication")
			}
		})
	}
}
