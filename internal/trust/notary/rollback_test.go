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

// The same version with other content is as bad as a lower one; a further signature on the same
// content is not.
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
			_, err := r.Fetch(t.Context(), of(testGUN), held)
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
			_, err := r.Fetch(t.Context(), of(testGUN), held)
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
	_, err := r.Fetch(t.Context(), of(testGUN), held)
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
	_, err = r.Fetch(t.Context(), of(testGUN), next)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// Versions seen bind after a change of the configuration too.
func TestThreatRollbackAfterRecheck(t *testing.T) {
	v := newVirtual(t)
	held := mustFetch(t, v.root(v.config()), nil)
	cfg := v.config()
	cfg.Roles = []Role{{Name: "release", Delegations: []string{"targets/ci"}, Threshold: 1}}
	r := v.root(cfg)
	rechecked, err := r.Recheck(of(testGUN), held)
	if err != nil {
		t.Fatal(err)
	}
	v.roles["targets/qa"].version--
	v.bump("timestamp", "snapshot", "targets")
	v.publish()
	_, err = r.Fetch(t.Context(), of(testGUN), rechecked)
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
	_, err = r.Fetch(t.Context(), of(testGUN), held) // verified by another Root
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// A repository that was deleted and made anew is read once its new root is pinned in place of the
// old one. No other edit of the configuration lets go of the versions seen.
func TestRepositoryMadeAnew(t *testing.T) {
	old := newVirtual(t)
	held := mustFetch(t, old.root(old.config()), nil)
	anew := newVirtual(t)
	clear(anew.files)
	for _, role := range anew.roles {
		role.version = 1
	}
	anew.publish()

	_, err := anew.root(old.config()).Fetch(t.Context(), of(testGUN), held)
	if err == nil {
		t.Error("a repository made anew is read under the old pin")
	}
	both := pinKeys(old.roles["root"].keys[0], anew.roles["root"].keys[0])
	_, err = anew.root(both).Fetch(t.Context(), of(testGUN), held)
	wantFault(t, err, v1alpha1.ReasonRollback)

	r := anew.root(anew.config())
	next := mustFetch(t, r, held)
	wantRoles(t, signedBy(next, "v1"), "ci one", "qa one")
	anew.bump("targets/qa", "targets", "snapshot", "timestamp")
	anew.publish()
	next = mustFetch(t, r, next)
	anew.roles["targets/qa"].version--
	anew.bump("targets", "snapshot", "timestamp")
	anew.publish()
	_, err = r.Fetch(t.Context(), of(testGUN), next) // what it has shown since binds it
	wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
}

// What is held and fails for another reason than its pin leaves the versions seen behind.
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
			held := mustFetch(t, v.root(v.config()), nil)
			cfg := v.config()
			edit(v, &cfg)
			r := v.root(cfg)
			if _, err := r.Recheck(of(testGUN), held); err == nil {
				t.Fatal("what is held passes, so nothing is tested")
			}
			v.roles["targets/qa"].version--
			v.roles["snapshot"].keys = []*testKey{newKey(t, "ecdsa", "")}
			v.roles["timestamp"].expires = testNow().AddDate(0, 1, 0)
			v.bump("root", "timestamp", "snapshot", "targets")
			v.publish()
			wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
			_, err := r.Fetch(t.Context(), of(testGUN), held)
			wantFault(t, err, v1alpha1.ReasonRollback, "targets/qa")
		})
	}
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
	_, err := r.Fetch(t.Context(), of(testGUN), held)
	wantFault(t, err, v1alpha1.ReasonRollback)
	wantRoles(t, signedBy(held, "v1"), "ci one", "qa one")
}
