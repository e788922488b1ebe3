package notary

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// signedWith changes a fresh repository, publishes it, and returns who signed v1 under a changed
// configuration.
func signedWith(t *testing.T, change func(v *virtual), config func(v *virtual, c *Config)) []string {
	t.Helper()
	v := newVirtual(t)
	v.bump("root")
	change(v)
	v.publish()
	cfg := v.config()
	if config != nil {
		config(v, &cfg)
	}
	return signedBy(mustFetch(t, v.root(cfg), nil), "v1")
}

func wantRoles(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signed (-want +got):\n%s", diff)
	}
}

// faultWith changes a fresh repository, publishes it, and expects a fault of the first fetch.
func faultWith(t *testing.T, change func(v *virtual), reason string, words ...string) {
	t.Helper()
	v := newVirtual(t)
	v.bump("root")
	change(v)
	v.publish()
	_, err := v.root(v.config()).Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, reason, words...)
}

// A role that is absent has not signed, whatever other roles have signed.
func TestThreatAbsentRoleIsNotReplacedByAnother(t *testing.T) {
	tests := map[string]func(v *virtual){
		"no delegation qa":          func(v *virtual) { delete(v.roles, "targets/qa") },
		"qa signed nothing":         func(v *virtual) { v.roles["targets/qa"].targets = nil },
		"qa is not in the snapshot": func(v *virtual) { v.unlist["targets/qa"] = true },
		"targets signed": func(v *virtual) {
			delete(v.roles, "targets/qa")
			v.roles["targets"].targets = m{"v1": entry("one")}
		},
		"targets/releases signed": func(v *virtual) {
			delete(v.roles, "targets/qa")
			v.delegate("targets/releases", entry("one"))
		},
		"below targets/releases": func(v *virtual) {
			delete(v.roles, "targets/qa")
			v.delegate("targets/releases", nil)
			v.delegate("targets/releases/qa", entry("one"))
		},
		"qa signed another tag":     func(v *virtual) { v.roles["targets/qa"].targets = m{"v2": entry("one")} },
		"qa has only a sha512 hash": func(v *virtual) { v.roles["targets/qa"].targets = m{"v1": sha512Only("one")} },
		"the tag in another case":   func(v *virtual) { v.roles["targets/qa"].targets = m{"V1": entry("one")} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) { wantRoles(t, signedWith(t, change, nil), "ci one") })
	}
}

func sha512Only(content string) m {
	return m{"length": len(content), "hashes": m{"sha512": strings.Repeat("A", 86) + "=="}}
}

func TestThreatRolesSignedDifferentDigests(t *testing.T) {
	wantRoles(t, signedWith(t, func(v *virtual) { v.roles["targets/ci"].targets = m{"v1": entry("two")} }, nil),
		"ci two", "qa one")
}

// The delegation lists the pinned key, but another of its keys signed.
func TestThreatListedKeyDidNotSign(t *testing.T) {
	two := func(v *virtual) {
		qa := v.roles["targets/qa"]
		qa.signers = []*testKey{qa.keys[0]}
		qa.keys = append(qa.keys, newKey(v.t, "ecdsa", ""))
	}
	pin := func(i int) func(v *virtual, c *Config) {
		return func(v *virtual, c *Config) {
			c.Roles = []Role{{Name: "qa", Threshold: 1, Keys: []PEM{{"f", string(v.roles["targets/qa"].keys[i].bare)}}}}
		}
	}
	wantRoles(t, signedWith(t, two, pin(0)), "ci one", "qa one")
	wantRoles(t, signedWith(t, two, pin(1)), "ci one")
}

// One key is one signer, even in two certificates, two key IDs, two signatures or two delegations.
func TestThreatOneKeyCountedTwice(t *testing.T) {
	certified := func(v *virtual, again *testKey) *testKey {
		return keyOf(v.t, again.signer, "ecdsa-x509", "one", nil, nil)
	}
	tests := map[string]struct {
		change func(v *virtual)
		roles  []Role
		want   []string
	}{
		"two certificates in one delegation": {change: func(v *virtual) {
			qa := v.roles["targets/qa"]
			qa.keys, qa.threshold = []*testKey{certified(v, qa.keys[0]), certified(v, qa.keys[0])}, 2
		}, want: []string{"ci one"}},
		"bare and certified": {change: func(v *virtual) {
			qa := v.roles["targets/qa"]
			qa.keys, qa.threshold = []*testKey{qa.keys[0], certified(v, qa.keys[0])}, 2
		}, want: []string{"ci one"}},
		"two signatures": {change: func(v *virtual) {
			qa := v.roles["targets/qa"]
			qa.keys, qa.threshold = []*testKey{qa.keys[0], newKey(v.t, "ecdsa", "")}, 2
			qa.signers = []*testKey{qa.keys[0], qa.keys[0]}
		}, want: []string{"ci one"}},
		"two keys, as a check of the test": {change: func(v *virtual) {
			qa := v.roles["targets/qa"]
			qa.keys, qa.threshold = []*testKey{qa.keys[0], newKey(v.t, "ecdsa", "")}, 2
		}, want: []string{"ci one", "qa one"}},
		"two delegations of one team": {change: func(v *virtual) {
			v.roles["targets/qa"].keys = []*testKey{certified(v, v.roles["targets/ci"].keys[0])}
		}, roles: []Role{{Name: "team", Delegations: []string{"targets/ci", "targets/qa"}, Threshold: 2}},
			want: []string{"ci one", "qa one"}},
		"two delegations with a key each": {
			change: func(*virtual) {},
			roles:  []Role{{Name: "team", Delegations: []string{"targets/ci", "targets/qa"}, Threshold: 2}},
			want:   []string{"ci one", "qa one", "team one"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantRoles(t, signedWith(t, tt.change, func(_ *virtual, c *Config) { c.Roles = tt.roles }), tt.want...)
		})
	}
}

func TestThreatThresholdZero(t *testing.T) {
	zero := func(role string) func(v *virtual) {
		return func(v *virtual) { v.roles[role].threshold = 0; v.roles[role].signers = []*testKey{} }
	}
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		faultWith(t, zero(role), v1alpha1.ReasonMetadataInvalid, "threshold of 0")
	}
	// targets.json lists the delegation, so it is invalid too.
	faultWith(t, zero("targets/qa"), v1alpha1.ReasonMetadataInvalid, "threshold of 0")
	v := newVirtual(t)
	cfg := v.config()
	cfg.Roles = []Role{{Name: "qa"}}
	_, err := New(cfg, nil)
	wantFault(t, err, v1alpha1.ReasonInvalidSpec, "spec.notary.roles[0].threshold")
}

// A revoked key never counts: not for a role, not for the threshold of a delegation, not for
// top-level files.
func TestThreatRevokedKey(t *testing.T) {
	revoke := func(role string) func(v *virtual, c *Config) {
		return func(v *virtual, c *Config) { c.RevokedKeys = []string{v.roles[role].keys[0].canonical} }
	}
	none := func(*virtual) {}
	wantRoles(t, signedWith(t, none, revoke("targets/qa")), "ci one")
	certified := func(v *virtual) {
		qa := v.roles["targets/qa"]
		qa.keys = []*testKey{keyOf(t, qa.keys[0].signer, "ecdsa-x509", "any", nil, nil)}
	}
	wantRoles(t, signedWith(t, certified, revoke("targets/qa")), "ci one")
	second := func(v *virtual) {
		v.roles["targets/qa"].keys = append(v.roles["targets/qa"].keys, newKey(t, "ecdsa", ""))
	}
	wantRoles(t, signedWith(t, second, revoke("targets/qa")), "ci one", "qa one")
	both := func(v *virtual) { second(v); v.roles["targets/qa"].threshold = 2 }
	wantRoles(t, signedWith(t, both, revoke("targets/qa")), "ci one")
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		v := newVirtual(t)
		cfg := v.config()
		revoke(role)(v, &cfg)
		_, err := v.root(cfg).Fetch(t.Context(), of(testGUN), nil)
		wantFault(t, err, v1alpha1.ReasonKeyRevoked, role+".json", v.roles[role].keys[0].canonical, "acme")
	}
}

func TestThreatDelegationOutsideItsPaths(t *testing.T) {
	paths := func(parent, child []string) func(v *virtual) {
		return func(v *virtual) {
			v.roles["targets/qa"].paths = parent
			v.delegate("targets/qa/eu", entry("one")).paths = child
		}
	}
	tests := map[string]struct {
		parent, child []string
		want          []string
	}{
		"everything":                    {[]string{""}, []string{""}, []string{"ci one", "qa one", "qa/eu one"}},
		"nothing":                       {[]string{}, []string{""}, []string{"ci one"}},
		"a child with nothing":          {[]string{""}, []string{}, []string{"ci one", "qa one"}},
		"a prefix":                      {[]string{"v"}, []string{"v1"}, []string{"ci one", "qa one", "qa/eu one"}},
		"another prefix":                {[]string{"release-"}, []string{"release-"}, []string{"ci one"}},
		"a child outside its parent":    {[]string{"release-"}, []string{"v"}, []string{"ci one"}},
		"a child wider than its parent": {[]string{"v"}, []string{""}, []string{"ci one", "qa one"}},
		"no glob":                       {[]string{"*"}, []string{"v*"}, []string{"ci one"}},
		"one of several": {
			[]string{"x", "v"}, []string{"y", "v1"}, []string{"ci one", "qa one", "qa/eu one"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantRoles(t, signedWith(t, paths(tt.parent, tt.child), nil), tt.want...) })
	}
}

// The children of a delegation depend on it: if it is unsigned or expired, they do not count.
func TestThreatChildOfAnUnsignedDelegation(t *testing.T) {
	tests := map[string]func(qa *vrole){
		"unlisted key": func(qa *vrole) { qa.signers = []*testKey{newKey(t, "ecdsa", "")} },
		"expired":      func(qa *vrole) { qa.expires = testNow() },
		"malformed":    func(qa *vrole) { qa.mutate = func(signed m) { signed["targets"] = []string{} } },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			wantRoles(t, signedWith(t, func(v *virtual) {
				v.delegate("targets/qa/eu", entry("one"))
				change(v.roles["targets/qa"])
			}, nil), "ci one")
		})
	}
}

func TestThreatDeepDelegation(t *testing.T) {
	chain := func(depth int) func(v *virtual) {
		return func(v *virtual) {
			name := "targets"
			for i := range depth {
				name += fmt.Sprintf("/l%d", i)
				v.delegate(name, entry("one"))
			}
		}
	}
	got := signedWith(t, chain(8), nil)
	if len(got) != 10 {
		t.Errorf("got %d roles that signed along a chain of 8 and beside it, want 10: %q", len(got), got)
	}
	faultWith(t, chain(9), v1alpha1.ReasonMetadataInvalid, "levels deep")
}

func TestThreatHundredsOfDelegations(t *testing.T) {
	faultWith(t, func(v *virtual) {
		key := newKey(t, "ecdsa", "")
		for i := range 63 {
			v.delegate(fmt.Sprintf("targets/r%d", i), nil).keys = []*testKey{key}
		}
	}, v1alpha1.ReasonTooLarge, "more than the 66 roles")
}

// A delegation that names an ancestor, a child of another delegation or itself creates no cycle:
// its file is invalid.
func TestThreatDelegationCycle(t *testing.T) {
	for _, name := range []string{"targets", "targets/qa", "targets/ci", "targets/qa/eu/x", "root", "targets/../qa"} {
		t.Run(name, func(t *testing.T) {
			wantRoles(t, signedWith(t, func(v *virtual) {
				v.roles["targets/qa"].mutate = func(signed m) {
					o := roleObject(1, v.roles["targets/qa"].keys...)
					o["name"], o["paths"] = name, []string{""}
					signed["delegations"].(m)["roles"] = []m{o}
				}
			}, nil), "ci one")
		})
	}
}

// No name from outside reaches a URL before the check of the naming rule.
func TestThreatPathTraversal(t *testing.T) {
	for _, name := range []string{
		"targets/../../../../secret", "targets/..", "targets//qa", "targets/qa/", "/targets/qa", "targets/QA",
		"targets/q?a", "targets/q%2fa",
		"targets/q#a", "targets/q.a", "other", "", "targets/" + strings.Repeat("a", 248), "timestamp",
		"http://example.com/x",
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			v.roles["snapshot"].mutate = func(signed m) { signed["meta"].(m)[name] = signed["meta"].(m)["targets/qa"] }
			v.publish()
			_, err := v.root(v.config()).Fetch(t.Context(), of(testGUN), nil)
			wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "snapshot.json")
			for _, requests := range v.requests() {
				if role, _, _ := strings.Cut(requests, "."); role != "root" && role != "timestamp" &&
					role != "snapshot" {
					t.Errorf("got requests for %q", requests)
				}
			}
		})
	}
	for _, gun := range []string{
		"", "app", "registry.example.com", "registry.example.com/", "registry.example.com/../x",
		"registry.example.com/a//b", "Régistry.example.com/a", "Registry_.example.com/a",
		"registry.example.com/A", "registry.example.com/a?b", "registry.example.com/a%2e", "registry.example.com/a/",
		"/a/b", "registry.example.com/a/./b",
		"registry.example.com:x/a", "user@registry.example.com/a", "registry.example.com/_trust",
		"registry.example.com/" + strings.Repeat("a", 512),
	} {
		v := newVirtual(t)
		_, err := v.root(v.config()).Fetch(t.Context(), of(gun), nil)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
		if requests := v.requests(); len(requests) > 0 {
			t.Errorf("repository %q: got requests for %q, want none", gun, requests)
		}
	}
}

// A target whose name is not a valid tag is no statement: an empty tag would mean any tag.
func TestThreatTargetWithoutAName(t *testing.T) {
	for _, name := range []string{
		"", " ", "v1 ", `v1\`, ".v1", "-v1", "a/b", "v1@sha256", "v:1", "é", strings.Repeat("a", 129),
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			v.roles["targets/qa"].targets = m{
				name: entry("two"), strings.Repeat("a", 128): entry("three"), "_V.1-x": entry("three"),
			}
			v.publish()
			ev := mustFetch(t, v.root(v.config()), nil)
			unnamed := slices.DeleteFunc(ev.Statements("", ""), func(s trust.Statement) bool { return s.Tag != name })
			if got := ev.Statements("", digestOf("two")); len(got) != 0 || len(unnamed) != 0 {
				t.Errorf("got statements of a target without a name: %v, %v", got, unnamed)
			}
			if got := len(ev.Statements("", digestOf("three"))); got != 2 {
				t.Errorf("got %d statements of the other targets, want 2", got)
			}
		})
	}
}

func TestThreatSignaturesInTheHundreds(t *testing.T) {
	faultWith(t, func(v *virtual) {
		r := v.roles["targets"]
		for range 65 {
			r.signers = append(r.signers, r.keys[0])
		}
	}, v1alpha1.ReasonTooLarge, "more than the 64 signatures")
}

func TestThreatMegabytesListed(t *testing.T) {
	listed := func(n int) func(v *virtual) {
		return func(v *virtual) { v.mutate["targets/qa"] = func(meta m) { meta["length"] = n } }
	}
	faultWith(t, listed(8<<20+1), v1alpha1.ReasonTooLarge, "targets/qa")
	faultWith(t, listed(-1), v1alpha1.ReasonMetadataInvalid, "targets/qa")
	faultWith(t, func(v *virtual) {
		for i := range 5 {
			v.delegate(fmt.Sprintf("targets/r%d", i), nil)
			v.mutate[fmt.Sprintf("targets/r%d", i)] = func(meta m) { meta["length"] = 8 << 20 }
		}
	}, v1alpha1.ReasonTooLarge, "together")
}

// The server serves the old timestamp forever.
func TestThreatFreeze(t *testing.T) {
	v := newVirtual(t)
	cfg := v.config()
	now := testNow()
	cfg.Clock = func() time.Time { return now }
	r := v.root(cfg)
	previous := mustFetch(t, r, nil)
	now = testNow().AddDate(0, 0, 15)
	_, err := r.Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json", "expired at")
	_, err = r.Recheck(of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json")
	_, err = r.Fetch(t.Context(), of(testGUN), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json")
}

// Files of different publications do not verify together.
func TestThreatMixAndMatch(t *testing.T) {
	v := newVirtual(t)
	old := v.current
	v.roles["targets/qa"].targets = m{"v1": entry("two")}
	v.bump("targets/qa", "targets", "snapshot", "timestamp")
	v.publish()
	for _, role := range []string{"snapshot", "targets", "targets/qa"} {
		v.serve[role] = serveBytes(old[role])
		_, err := v.root(v.config()).Fetch(t.Context(), of(testGUN), nil)
		if err == nil {
			t.Fatalf("got an older %s accepted, want a fault", role)
		}
		clear(v.serve)
	}
	wantRoles(t, signedBy(mustFetch(t, v.root(v.config()), nil), "v1"), "ci one", "qa two")
}
