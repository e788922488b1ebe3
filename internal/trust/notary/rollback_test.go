package notary

import (
	"math"
	"net/http"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func serveBytes(raw []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(raw) }
}

// The same version with other content is as bad as a lower one; a further signature on the same content is not.
func TestThreatRollbackSameVersion(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "targets/qa"} {
		t.Run(role, func(t *testing.T) {
			v := newVirtual(t)
			r := v.root(v.config())
			held := mustFetch(t, r, nil)
			v.bump("timestamp", "snapshot", "targets", "targets/qa")
			v.roles[role].version--
			v.publish() // other hashes below, so other content above; resigned alone for those without any
			v.roles[role].targets = m{"v1": entry("two")}
			v.publish()
			_, err := r.Fetch(t.Context(), testGUN, held)
			if role == "targets" {
				wantFault(t, err, v1alpha1.ReasonRollback, "targets.json", "other content")
				return
			}
			wantFault(t, err, v1alpha1.ReasonRollback, role+".json", "other content")
		})
	}
	v := newVirtual(t)
	r := v.root(v.config())
	held := mustFetch(t, r, nil)
	v.bump("timestamp", "snapshot")
	v.publish() // signs the targets files anew, as they are
	wantRoles(t, signedBy(mustFetch(t, r, held), "v1"), "ci one", "qa one")
}

// A version set too high by a stolen key is left behind by replacing the keys, and by nothing less.
func TestThreatFastForward(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "targets/qa"} {
		t.Run(role, func(t *testing.T) {
			v := newVirtual(t)
			r := v.root(v.config())
			honest := v.roles[role].version
			v.roles[role].version = math.MaxInt64
			v.publish()
			held := mustFetch(t, r, nil)

			for _, rest := range v.roles {
				rest.version = 8
			}
			v.roles["root"].version = 6
			v.roles[role].version = honest + 1
			v.roles[role].keys = append(v.roles[role].keys, newKey(t, "ecdsa", "")) // the stolen key is still listed
			v.publish()
			_, err := r.Fetch(t.Context(), testGUN, held)
			wantFault(t, err, v1alpha1.ReasonRollback, role+".json")

			v.roles[role].keys = v.roles[role].keys[1:]
			v.bump("timestamp", "snapshot", "targets", "root")
			v.publish()
			wantRoles(t, signedBy(mustFetch(t, r, held), "v1"), "ci one", "qa one")
		})
	}
}

// A snapshot may stop listing a delegation only where the file that delegates has changed as well.
func TestThreatRollbackByDroppedDelegation(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	held := mustFetch(t, r, nil)
	v.unlist["targets/qa"] = true
	v.bump("timestamp", "snapshot")
	v.publish()
	_, err := r.Fetch(t.Context(), testGUN, held)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa", "no longer listed")

	v.bump("targets", "timestamp", "snapshot")
	v.publish()
	next := mustFetch(t, r, held)
	wantRoles(t, signedBy(next, "v1"), "ci one")
	v.bump("timestamp", "snapshot")
	v.publish()
	next = mustFetch(t, r, next)
	wantRoles(t, signedBy(next, "v1"), "ci one")

	// What was seen of it is remembered meanwhile.
	delete(v.unlist, "targets/qa")
	v.roles["targets/qa"].version--
	v.bump("timestamp", "snapshot")
	v.publish()
	_, err = r.Fetch(t.Context(), testGUN, next)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// Versions seen bind after a change of the configuration too.
func TestThreatRollbackAfterRecheck(t *testing.T) {
	v := newVirtual(t)
	held := mustFetch(t, v.root(v.config()), nil)
	cfg := v.config()
	cfg.Roles = []Role{{Name: "release", Delegations: []string{"targets/ci"}, Threshold: 1}}
	r := v.root(cfg)
	rechecked, err := r.Recheck(testGUN, held)
	if err != nil {
		t.Fatal(err)
	}
	v.roles["targets/qa"].version--
	v.bump("timestamp", "snapshot", "targets")
	v.publish()
	_, err = r.Fetch(t.Context(), testGUN, rechecked)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
	_, err = r.Fetch(t.Context(), testGUN, held) // verified by another Root
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// The server serves a repository from before what is held, root included.
func TestThreatRollbackOfEverything(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	old := v.current
	for _, role := range v.roles {
		role.version++
	}
	v.publish()
	held := mustFetch(t, r, nil)
	for name, raw := range old {
		v.serve[name] = serveBytes(raw)
	}
	_, err := r.Fetch(t.Context(), testGUN, held)
	wantFault(t, err, v1alpha1.ReasonRollback)
	wantRoles(t, signedBy(held, "v1"), "ci one", "qa one")
}
