package notary

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// A role with a threshold counts as long as that many of its distinct keys count.
func TestRoleThresholdAndExpiry(t *testing.T) {
	month := func(n int) time.Time { return testNow().AddDate(0, n, 0) }
	v := newVirtual(t)
	cfg := v.config()
	v.bump("root")
	v.roles["targets"].expires = month(9)
	shared := v.delegate("targets/a", entry("one")).keys[0]
	v.roles["targets/a"].expires = month(1)
	v.delegate("targets/b", entry("one")).expires = month(2)
	v.delegate("targets/c", entry("one")).expires = month(3)
	v.delegate("targets/d", entry("one")).expires = month(12) // later than targets, which limits it
	v.roles["targets/d"].keys = []*testKey{shared}            // the same key as a
	v.delegate("targets/e", entry("one")).expires = testNow() // expired
	v.delegate("targets/f", entry("two"))
	v.roles["targets/a"].targets["v2"] = entry("two")
	v.publish()
	team := []string{"targets/a", "targets/b", "targets/c", "targets/d", "targets/e", "targets/f"}
	role := func(threshold int) Role {
		return Role{Name: fmt.Sprintf("team-%d", threshold), Delegations: team, Threshold: threshold}
	}
	cfg.Roles = []Role{role(1), role(2), role(3), role(4)}
	ev := mustFetch(t, v.root(cfg), nil)
	got := map[string]time.Time{}
	for _, s := range ev.Statements("v1", "") {
		if strings.HasPrefix(s.Role, "team") {
			got[s.Role+" "+s.Digest] = s.NotAfter
		}
	}
	want := map[string]time.Time{
		"team-1 " + digestOf("one"): month(9), "team-1 " + digestOf("two"): month(9),
		"team-2 " + digestOf("one"): month(3), "team-3 " + digestOf("one"): month(2),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statements of the teams (-want +got):\n%s", diff)
	}
}

// The targets role counts only for a role that the configuration maps to it.
func TestTargetsCountsOnlyWhereMapped(t *testing.T) {
	admin := func(_ *virtual, c *Config) {
		c.Roles = []Role{
			{Name: "admin", Delegations: []string{"targets"}, Threshold: 1},
			{Name: "qa", Delegations: []string{"targets/ci"}, Threshold: 1},
		}
	}
	change := func(v *virtual) {
		v.roles["targets"].targets = m{"v1": entry("two")}
		v.roles["targets/qa"].targets = m{"v1": entry("three")} // does not count for qa here
	}
	wantRoles(t, signedWith(t, change, admin), "admin two", "ci one", "qa one")
}

// The same digest with two lengths does not count twice for a threshold, and is one statement.
func TestLengthIsSigned(t *testing.T) {
	longer := entry("one")
	longer["length"] = 4
	change := func(v *virtual) { v.roles["targets/qa"].targets = m{"v1": longer} }
	config := func(threshold int) func(_ *virtual, c *Config) {
		return func(_ *virtual, c *Config) {
			c.Roles = []Role{{Name: "team", Delegations: []string{"targets/ci", "targets/qa"}, Threshold: threshold}}
		}
	}
	wantRoles(t, signedWith(t, change, config(2)), "ci one", "qa one")
	wantRoles(t, signedWith(t, change, config(1)), "ci one", "qa one", "team one")
}

func TestDigestIndex(t *testing.T) {
	v := newVirtual(t)
	v.roles["targets/ci"].targets = m{"v1": entry("one"), "v2": entry("two"), "latest": entry("one")}
	v.roles["targets/qa"].targets = m{"v1": entry("one"), "latest": entry("two")}
	v.publish()
	ev := mustFetch(t, v.root(v.config()), nil)
	for content, want := range map[string][]string{
		"one": {"ci latest", "ci v1", "qa v1"}, "two": {"ci v2", "qa latest"}, "three": nil,
	} {
		var got []string
		for _, s := range ev.Statements("", digestOf(content)) {
			if s.Digest != digestOf(content) {
				t.Errorf("%s: got a statement about %s", content, s.Digest)
			}
			got = append(got, s.Role+" "+s.Tag)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("statements about %s (-want +got):\n%s", content, diff)
		}
	}
	for _, tag := range []string{"v1", "v2", "latest"} {
		got := ev.Statements(tag, "")
		if !slices.IsSortedFunc(got,
			func(a, b trust.Statement) int { return strings.Compare(a.Digest+a.Role, b.Digest+b.Role) }) {
			t.Errorf("tag %s: got %v, want them sorted", tag, got)
		}
	}
}

func TestRecheck(t *testing.T) {
	v := newVirtual(t)
	previous := mustFetch(t, v.root(v.config()), nil)
	v.server.Close() // no network is needed
	tests := map[string]struct {
		mod    func(c *Config)
		want   []string
		reason string
	}{
		"unchanged": {func(*Config) {}, []string{"ci one", "qa one"}, ""},
		"another role": {
			func(c *Config) { c.Roles = []Role{{Name: "rel", Delegations: []string{"targets/ci"}, Threshold: 1}} },
			[]string{"ci one", "qa one", "rel one"}, "",
		},
		"role's key pinned": {func(c *Config) {
			c.Roles = []Role{{Name: "qa", Threshold: 1, Keys: []PEM{{"f", string(newKey(t, "ecdsa", "").bare)}}}}
		}, []string{"ci one"}, ""},
		"key revoked": {
			func(c *Config) { c.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical} },
			[]string{"ci one"}, "",
		},
		"root key revoked": {
			func(c *Config) { c.RevokedKeys = []string{v.roles["root"].keys[0].canonical} }, nil,
			v1alpha1.ReasonKeyRevoked,
		},
		"another pin": {
			func(c *Config) { c.RootKeys = []PEM{{"f", string(newKey(t, "ecdsa", "").bare)}} }, nil,
			v1alpha1.ReasonRootNotPinned,
		},
		"expired": {
			func(c *Config) { c.Clock = func() time.Time { return testNow().AddDate(0, 1, 0) } }, nil,
			v1alpha1.ReasonMetadataExpired,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := v.config()
			tt.mod(&cfg)
			ev, err := v.root(cfg).Recheck(of(testGUN), previous)
			if tt.reason != "" {
				wantFault(t, err, tt.reason, testGUN)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRoles(t, signedBy(ev, "v1"), tt.want...)
		})
	}
	r := v.root(v.config())
	if ev, err := r.Recheck(of(testGUN), trust.Unsigned{}); err != nil || ev != trust.Evidence(trust.Unsigned{}) {
		t.Errorf("Recheck of an unsigned repository: got %v, %v, want it unchanged", ev, err)
	}
	_, err := r.Recheck(of("registry.example.com/acme/other"), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
	_, err = r.Fetch(t.Context(), of("registry.example.com/acme/other"), previous)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
}

// A Root verifies again the evidence of another Root.
func TestFetchWithEvidenceOfAnotherRoot(t *testing.T) {
	v := newVirtual(t)
	previous := mustFetch(t, v.root(v.config()), nil)
	cfg := v.config()
	cfg.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical}
	wantRoles(t, signedBy(mustFetch(t, v.root(cfg), previous), "v1"), "ci one")
	cfg = pinKeys(newKey(t, "ecdsa", ""))
	_, err := v.root(cfg).Fetch(t.Context(), of(testGUN), previous)
	wantFault(t, err, v1alpha1.ReasonRootNotPinned)
}

// A first fetch tries again if a publication happens between its requests.
func TestFetchDuringPublication(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	old := v.current["root"]
	v.bump("root", "targets", "snapshot", "timestamp")
	v.publish()
	var once sync.Once
	v.serve["root"] = func(w http.ResponseWriter, _ *http.Request) {
		raw := v.current["root"]
		once.Do(func() { raw = old })
		_, _ = w.Write(raw)
	}
	wantRoles(t, signedBy(mustFetch(t, r, nil), "v1"), "ci one", "qa one")
}

// One Root serves many callers concurrently.
func TestFetchConcurrently(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			base := previous
			if i%2 == 0 {
				base = nil
			}
			ev, err := r.Fetch(t.Context(), of(testGUN), base)
			if err != nil {
				t.Error(err)
				return
			}
			if diff := cmp.Diff([]string{"ci one", "qa one"}, signedBy(ev, "v1")); diff != "" {
				t.Errorf("signed (-want +got):\n%s", diff)
			}
			if _, err := r.Recheck(of(testGUN), ev); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestFetchCanceled(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	previous := mustFetch(t, r, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, base := range []trust.Evidence{nil, previous} {
		ev, err := r.Fetch(ctx, of(testGUN), base)
		wantFault(t, err, v1alpha1.ReasonUnreachable)
		if ev != nil {
			t.Errorf("got evidence %v without a request, want none", ev)
		}
	}
}

func TestProbe(t *testing.T) {
	v := newVirtual(t)
	r := v.root(v.config())
	v.serve["/v2/"] = notFound // with the error code of the protocol
	wantFault(t, r.Probe(t.Context(), ""), v1alpha1.ReasonUnexpectedAnswer, "spec.notary.server")
	clear(v.serve)
	if err := r.Probe(t.Context(), ""); err != nil {
		t.Errorf("Probe: %v", err)
	}
	v.serve["/v2/"] = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }
	wantFault(t, r.Probe(t.Context(), ""), v1alpha1.ReasonUnexpectedAnswer, "spec.notary.server")
	v.server.Close()
	wantFault(t, r.Probe(t.Context(), ""), v1alpha1.ReasonUnreachable)
}

// A thousand repositories with a hundred tags and three delegations must fit in 200 MiB, garbage
// included.
func TestMemory(t *testing.T) {
	v := large(t)
	r := v.root(v.config())
	const n = 40
	previous := make([]trust.Evidence, n)
	before := heap()
	for i := range previous {
		previous[i] = mustFetch(t, r, nil)
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each repository", each)
	if limit := uint64(32 << 10); each > limit {
		t.Errorf("got %d bytes for each repository, want at most %d", each, limit)
	}
	if got := len(previous[0].Statements("v1.2.7", "")); got != 3 {
		t.Errorf("got %d statements, want 3", got)
	}
	runtime.KeepAlive(previous)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// A lookup allocates the list that it returns, and the text of a digest that the caller does not
// have.
func TestLookupAllocations(t *testing.T) {
	v := newVirtual(t)
	ev := mustFetch(t, v.root(v.config()), nil)
	digest := digestOf("one")
	for name, c := range map[string]struct {
		tag, digest string
		want        float64
	}{
		"tag": {tag: "v1", want: 2}, "digest": {digest: digest, want: 1}, "both": {tag: "v1", digest: digest, want: 1},
		"unknown": {tag: "v1", digest: digestOf("unknown")},
	} {
		if n := testing.AllocsPerRun(100, func() { _ = ev.Statements(c.tag, c.digest) }); n != c.want {
			t.Errorf("a lookup by %s: got %v allocations, want %v", name, n, c.want)
		}
	}
}
