package notary

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// branched returns a repository with many kinds of keys: a chain of roots, a role that two keys
// sign, a key with a certificate, a nested delegation. It also returns the keys that its
// verification uses, by their purpose.
func branched(t *testing.T) (*virtual, Config, map[string]string) {
	t.Helper()
	v := newVirtual(t)
	cfg := v.config()
	qa := v.roles["targets/qa"]
	qa.keys = append(qa.keys, newKey(t, "ecdsa", ""))
	ci := v.roles["targets/ci"]
	ci.keys = []*testKey{keyOf(t, ci.keys[0].signer, "ecdsa-x509", "any", nil, nil)}
	v.delegate("targets/ci/eu", entry("one"))
	keys := map[string]string{}
	for i, k := range v.rotateRoot(2) {
		keys[fmt.Sprint("root ", i+1)] = k.canonical
	}
	for _, name := range []string{"timestamp", "snapshot", "targets", "targets/ci/eu"} {
		keys[name] = v.roles[name].keys[0].canonical
	}
	keys["targets/ci"], keys["targets/ci by its certificate"] = ci.keys[0].canonical, ci.keys[0].id
	keys["targets/qa, one of two"] = qa.keys[0].canonical
	keys["unused"] = newKey(t, "ecdsa", "").canonical
	return v, cfg, keys
}

func without(cfg Config, ids ...string) Config {
	cfg.RevokedKeys = slices.Clone(ids)
	return cfg
}

// After a revocation, Recheck gives the same statements as a full verification, for every key, and
// again when the revocation is undone.
func TestThreatRevocationReachesWhatIsHeld(t *testing.T) {
	v, cfg, keys := branched(t)
	root := v.root(cfg)
	previous := mustFetch(t, root, nil)
	all := []string{"ci one", "ci/eu one", "qa one"}
	wantRoles(t, signedBy(previous, "v1"), all...)
	data := mustPack(t, root, previous)
	v.server.Close()
	want := map[string][]string{
		"targets/ci": {"qa one"}, "targets/ci by its certificate": {"qa one"}, "targets/ci/eu": {"ci one", "qa one"},
		"targets/qa, one of two": all, "unused": all,
	}
	for name, id := range keys {
		t.Run(name, func(t *testing.T) {
			r := v.root(without(cfg, id))
			ev, err := r.Recheck(of(testGUN), previous)
			full, errFull := r.unpackOne(testGUN, data, nil)
			if want[name] == nil {
				wantFault(t, err, v1alpha1.ReasonKeyRevoked, id, testGUN)
				wantFault(t, errFull, v1alpha1.ReasonKeyRevoked, id)
				ev = previous // as the store does
			} else if err != nil || errFull != nil {
				t.Fatal(err, errFull)
			} else {
				wantRoles(t, signedBy(ev, "v1"), want[name]...)
				if diff := cmp.Diff(full.Statements("v1", ""), ev.Statements("v1", "")); diff != "" {
					t.Errorf("statements (-verified in full +rechecked):\n%s", diff)
				}
			}
			back, err := v.root(cfg).Recheck(of(testGUN), ev)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(previous.Statements("v1", ""), back.Statements("v1", "")); diff != "" {
				t.Errorf("statements after the revocation is undone (-before +after):\n%s", diff)
			}
		})
	}
}

// The revocation of a key that a repository does not use costs almost nothing, so that a revocation
// takes effect at once on a thousand repositories.
func TestRevocationOfAnotherKeyVerifiesNothing(t *testing.T) {
	v, cfg, keys := branched(t)
	previous := mustFetch(t, v.root(cfg), nil)
	cost := func(r *Root) float64 {
		return testing.AllocsPerRun(5, func() {
			if _, err := r.Recheck(of(testGUN), previous); err != nil {
				t.Error(err)
			}
		})
	}
	if got := cost(v.root(without(cfg, keys["unused"]))); got > 5 {
		t.Errorf("got %g allocations, want few", got)
	}
	if got := cost(v.root(without(cfg, keys["targets/ci"]))); got < 500 {
		t.Errorf("got %g allocations for a key that it uses, want a full verification", got)
	}
}

// Any other edit forces a full verification.
func TestRecheckAfterAnotherEditVerifies(t *testing.T) {
	v, cfg, _ := branched(t)
	previous := mustFetch(t, v.root(cfg), nil)
	stranger := newKey(t, "ecdsa", "")
	authority := newAuthority(t, nil)
	for name, edit := range map[string]func(*Config){
		"pin":  func(c *Config) { c.RootKeys = []PEM{{"f", string(stranger.bare)}} },
		"CA":   func(c *Config) { c.RootKeys, c.RootCA = nil, PEM{"f", string(authority.pem)} },
		"role": func(c *Config) { c.Roles = []Role{{Name: "qa", Threshold: 3}} },
		"role's key": func(c *Config) {
			c.Roles = []Role{{Name: "qa", Threshold: 1, Keys: []PEM{{"f", string(stranger.bare)}}}}
		},
		"role's source": func(c *Config) {
			c.Roles = []Role{{Name: "qa", Threshold: 1, Delegations: []string{"targets/none"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			edited := cfg
			edit(&edited)
			ev, err := v.root(edited).Recheck(of(testGUN), previous)
			if err == nil && slices.Contains(signedBy(ev, "v1"), "qa one") {
				t.Error("got a signature of qa, want none")
			}
		})
	}
}

// While the server is down, the fault still names the revocation that invalidated the earlier
// evidence.
func TestRevokedKeyIsNamedWithTheServerDown(t *testing.T) {
	v := newVirtual(t)
	previous := mustFetch(t, v.root(v.config()), nil)
	v.server.Close()
	key := v.roles["targets"].keys[0].canonical
	_, err := v.root(without(v.config(), key)).Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonUnreachable, key, "spec.revokedKeys")
}

// An attacker with a stolen root key has published a root. Both keys are revoked, and the
// repository is created again under another pin: it starts at version 1.
func TestRevokedRootRecreatedUnderAnotherPin(t *testing.T) {
	v := newVirtual(t)
	cfg := v.config()
	stolen := v.roles["root"].keys[0].canonical
	thiefs := v.rotateRoot(1)[1].canonical
	previous := mustFetch(t, v.root(cfg), nil)

	fresh := newVirtual(t)
	for _, r := range fresh.roles {
		r.version = 1
	}
	fresh.files = map[string][]byte{}
	fresh.publish()
	next := without(fresh.config(), stolen, thiefs)
	ev, err := fresh.root(next).Fetch(t.Context(), of(testGUN), previous)
	if err != nil {
		t.Fatal(err)
	}
	wantRoles(t, signedBy(ev, "v1"), "ci one", "qa one")
}

// A targets key is replaced and revoked before the operator has seen the new one. The earlier
// evidence does not count, the server's files do, and the seen versions still bound them.
func TestThreatReplacedAndRevokedTargetsKey(t *testing.T) {
	v := newVirtual(t)
	cfg := v.config()
	previous := mustFetch(t, v.root(cfg), nil)
	before := v.current
	old := v.roles["targets"].keys[0]
	v.roles["targets"].keys = []*testKey{newKey(t, "ecdsa", "")}
	v.bump("root", "targets", "snapshot", "timestamp")
	v.publish()
	r := v.root(without(cfg, old.canonical))
	_, err := r.Recheck(of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonKeyRevoked, old.canonical, "targets.json", "key rotate")
	ev, err := r.Fetch(t.Context(), of(testGUN), previous)
	if err != nil {
		t.Fatal(err)
	}
	wantRoles(t, signedBy(ev, "v1"), "ci one", "qa one")

	for name, raw := range before { // the server goes back to the files that the stolen key signed
		v.serve[name] = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(raw) }
	}
	for name, from := range map[string]trust.Evidence{"refresh": ev, "first fetch": nil} {
		if got, err := r.Fetch(t.Context(), of(testGUN), from); err == nil {
			t.Errorf("%s: got %v of the old metadata, want a fault", name, signedBy(got, "v1"))
		}
	}
}
