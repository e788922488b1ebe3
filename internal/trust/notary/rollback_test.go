package notary

import (
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func serveBytes(raw []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(raw) }
}

// The same version with other content is a rollback, like a lower one. Another signature on the
// same content is not.
func TestThreatRollbackSameVersion(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "targets/qa"} {
		t.Run(role, func(t *testing.T) {
			v := newVirtual(t)
			r := v.root(v.config())
			previous := mustFetch(t, r, nil)
			v.bump("timestamp", "snapshot", "targets", "targets/qa")
			v.roles[role].version--
			v.publish() // new hashes change the listing files; a file without hashes is only signed again
			v.roles[role].targets = m{"v1": entry("two")}
			v.publish()
			_, err := r.Fetch(t.Context(), of(testGUN), previous)
			if role == "targets" {
				wantFault(t, err, v1alpha1.ReasonRollback, "targets.json", "other content")
				return
			}
			wantFault(t, err, v1alpha1.ReasonRollback, role+".json", "other content")
		})
	}
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	v.bump("timestamp", "snapshot")
	v.publish() // signs the unchanged targets files again
	wantRoles(t, signedBy(mustFetch(t, r, previous), "v1"), "ci one", "qa one")
}

// After a fast-forward attack with a stolen key, versions start again only when all keys are
// replaced.
func TestThreatFastForward(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "targets/qa"} {
		t.Run(role, func(t *testing.T) {
			v := newVirtual(t)
			r := v.root(v.config())
			honest := v.roles[role].version
			v.roles[role].version = math.MaxInt64
			v.publish()
			previous := mustFetch(t, r, nil)

			for _, rest := range v.roles {
				rest.version = 8
			}
			v.roles["root"].version = 6
			v.roles[role].version = honest + 1
			v.roles[role].keys = append(v.roles[role].keys, newKey(t, "ecdsa", "")) // the stolen key is still listed
			v.publish()
			_, err := r.Fetch(t.Context(), of(testGUN), previous)
			wantFault(t, err, v1alpha1.ReasonRollback, role+".json")

			v.roles[role].keys = v.roles[role].keys[1:]
			v.bump("timestamp", "snapshot", "targets", "root")
			v.publish()
			wantRoles(t, signedBy(mustFetch(t, r, previous), "v1"), "ci one", "qa one")
		})
	}
}

// A snapshot may drop a delegation only if the delegating file has changed too.
func TestThreatRollbackByDroppedDelegation(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	v.unlist["targets/qa"] = true
	v.bump("timestamp", "snapshot")
	v.publish()
	_, err := r.Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa", "no longer listed")

	v.bump("targets", "timestamp", "snapshot")
	v.publish()
	next := mustFetch(t, r, previous)
	wantRoles(t, signedBy(next, "v1"), "ci one")
	v.bump("timestamp", "snapshot")
	v.publish()
	next = mustFetch(t, r, next)
	wantRoles(t, signedBy(next, "v1"), "ci one")

	// Its seen version is kept meanwhile.
	delete(v.unlist, "targets/qa")
	v.roles["targets/qa"].version--
	v.bump("timestamp", "snapshot")
	v.publish()
	_, err = r.Fetch(t.Context(), of(testGUN), next)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// Seen versions still count after a change of the configuration.
func TestThreatRollbackAfterRecheck(t *testing.T) {
	v := newVirtual(t)
	previous := mustFetch(t, v.root(v.config()), nil)
	cfg := v.config()
	cfg.Roles = []Role{{Name: "release", Delegations: []string{"targets/ci"}, Threshold: 1}}
	r := v.root(cfg)
	rechecked, err := r.Recheck(of(testGUN), previous)
	if err != nil {
		t.Fatal(err)
	}
	v.roles["targets/qa"].version--
	v.bump("timestamp", "snapshot", "targets")
	v.publish()
	_, err = r.Fetch(t.Context(), of(testGUN), rechecked)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
	_, err = r.Fetch(t.Context(), of(testGUN), previous) // verified by another Root
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// A repository that was deleted and created again verifies once its new root is pinned instead of
// the old one. Any other edit of the configuration keeps the seen versions.
func TestRecreatedRepository(t *testing.T) {
	old := newVirtual(t)
	previous := mustFetch(t, old.root(old.config()), nil)
	anew := newVirtual(t)
	clear(anew.files)
	for _, role := range anew.roles {
		role.version = 1
	}
	anew.publish()

	_, err := anew.root(old.config()).Fetch(t.Context(), of(testGUN), previous)
	if err == nil {
		t.Error("got evidence of a recreated repository under the old pin, want a fault")
	}
	both := pinKeys(old.roles["root"].keys[0], anew.roles["root"].keys[0])
	_, err = anew.root(both).Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonRollback)

	r := anew.root(anew.config())
	next := mustFetch(t, r, previous)
	wantRoles(t, signedBy(next, "v1"), "ci one", "qa one")
	anew.bump("targets/qa", "targets", "snapshot", "timestamp")
	anew.publish()
	next = mustFetch(t, r, next)
	anew.roles["targets/qa"].version--
	anew.bump("targets", "snapshot", "timestamp")
	anew.publish()
	_, err = r.Fetch(t.Context(), of(testGUN), next) // versions seen since still count
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// If the earlier evidence fails for another reason than its pin, the seen versions are kept.
func TestThreatRollbackAfterAFailedRecheck(t *testing.T) {
	tests := map[string]func(v *virtual, c *Config){
		"expired": func(_ *virtual, c *Config) { c.Clock = func() time.Time { return testNow().AddDate(0, 0, 15) } },
		"a key revoked": func(v *virtual, c *Config) {
			c.RevokedKeys = []string{v.roles["snapshot"].keys[0].canonical}
		},
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			previous := mustFetch(t, v.root(v.config()), nil)
			cfg := v.config()
			edit(v, &cfg)
			r := v.root(cfg)
			if _, err := r.Recheck(of(testGUN), previous); err == nil {
				t.Fatal("got the earlier evidence verified, so the test tests nothing")
			}
			v.roles["targets/qa"].version--
			v.roles["snapshot"].keys = []*testKey{newKey(t, "ecdsa", "")}
			v.roles["timestamp"].expires = testNow().AddDate(0, 1, 0)
			v.bump("root", "timestamp", "snapshot", "targets")
			v.publish()
			wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
			_, err := r.Fetch(t.Context(), of(testGUN), previous)
			wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
		})
	}
}

// The server serves older files of a repository, including the root.
func TestThreatRollbackOfEverything(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	old := v.current
	for _, role := range v.roles {
		role.version++
	}
	v.publish()
	previous := mustFetch(t, r, nil)
	for name, raw := range old {
		v.serve[name] = serveBytes(raw)
	}
	_, err := r.Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonRollback)
	wantRoles(t, signedBy(previous, "v1"), "ci one", "qa one")
}
