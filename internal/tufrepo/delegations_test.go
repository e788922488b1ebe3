package tufrepo_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

const app = "registry.example.com/acme/app:v1"

// One target is signed by three delegations, one of them by a hash bin. Without one of them,
// exactly its role is gone.
func TestEveryRoleThatSigned(t *testing.T) {
	binOf := func(bins []string) string {
		sum := sha256.Sum256([]byte(app))
		return bins[sum[0]>>4]
	}
	for _, without := range []string{"none", "ci", "qa", "release"} {
		t.Run("without "+without, func(t *testing.T) {
			r := newRepository(t)
			r.delegate(metadata.TARGETS, "ci", "registry.example.com/acme/*")
			r.delegate(metadata.TARGETS, "qa", "registry.example.com/*/*")
			r.delegate(metadata.TARGETS, "release", "*/*/*")
			bins := r.split("qa", "qa-bin", 4)
			files := map[string]string{"ci": "ci", "qa": binOf(bins), "release": "release"}
			want := []string{}
			for _, role := range []string{"ci", "qa", "release"} {
				if role != without {
					r.sign(files[role], app, []byte("manifest"))
					want = append(want, role)
				}
			}
			r.publish(append(bins, metadata.TARGETS, "ci", "qa", "release")...)
			s := loaded(t, r.client(), nil, app)
			wantRoles(t, s, app, want...)
			sum := sha256.Sum256([]byte("manifest"))
			for _, signed := range s.Signed(app, today).Signed {
				if signed.SHA256 != hex.EncodeToString(sum[:]) || signed.Length != 8 || len(signed.Keys) != 1 ||
					!signed.NotAfter.Equal(today.AddDate(1, 0, 0)) || signed.File != files[signed.Role] {
					t.Errorf("got %+v, want the digest, length, key, expiry and file of %s", signed, signed.Role)
				}
				if got, want := signed.Keys[0].ID, r.keys[signed.File][0].id; got != want {
					t.Errorf("%s: got key %s, want %s", signed.Role, got, want)
				}
			}
		})
	}
}

func TestOnlyWhatMayHaveThePathIsFetched(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "acme/*")
	r.delegate(metadata.TARGETS, "other", "other/*")
	bins := r.split("ci", "bin", 8)
	r.publish(append(bins, metadata.TARGETS, "ci", "other")...)
	c := r.client()
	s := refreshed(t, c, nil)
	r.proxy.Reset()
	s, err := c.Load(t.Context(), s, "acme/app", "acme/app", "nothing/of/this")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("acme/app"))
	want := []string{fmt.Sprintf("/1.bin-%02x.json", sum[0]), "/1.ci.json"}
	if got := r.requests(); !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
	r.proxy.Reset()
	again, err := c.Load(t.Context(), s, "acme/app")
	if err != nil || again != s || len(r.requests()) != 0 {
		t.Errorf("got %v and requests %q, want the held State and no request", err, r.requests())
	}

	// A change costs the changed file.
	r.sign("ci", "acme/other", []byte("x"))
	r.publish("ci")
	s = refreshed(t, c, s)
	r.proxy.Reset()
	if _, err = c.Load(t.Context(), s, "acme/app"); err != nil {
		t.Fatal(err)
	}
	if got, want := r.requests(), []string{"/2.ci.json"}; !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
}

func TestNotLoadedIsNotUnsigned(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "acme/*")
	r.sign("ci", "acme/app", []byte("x"))
	r.publish(metadata.TARGETS, "ci")
	c := r.client()
	s := refreshed(t, c, nil)
	if got := s.Signed("acme/app", today); len(got.Signed) != 0 || !slices.Equal(got.Missing, []string{"ci"}) {
		t.Errorf("before Load: got %+v, want ci missing", got)
	}
	r.proxy.Set(faultproxy.Fault{Match: ends("/1.ci.json"), Status: 500})
	s, err := c.Load(t.Context(), s, "acme/app")
	wantFault(t, err, v1alpha1.ReasonServerError, "ci.json")
	if got := s.Signed("acme/app", today); !slices.Equal(got.Missing, []string{"ci"}) {
		t.Errorf("after a failed Load: got %+v, want ci missing", got)
	}
	r.proxy.Set()
	wantRoles(t, loaded(t, c, s, "acme/app"), "acme/app", "ci")
}

// A fault of one role leaves the others.
func TestFaultOfOneRole(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.delegate(metadata.TARGETS, "qa", "*")
	r.sign("ci", "app", []byte("x"))
	r.sign("qa", "app", []byte("x"))
	r.publish(metadata.TARGETS, "ci", "qa")
	c := r.client()
	r.proxy.Set(faultproxy.Fault{Match: ends("/1.qa.json"), Drop: true})
	s, err := c.Load(t.Context(), refreshed(t, c, nil), "app")
	wantFault(t, err, v1alpha1.ReasonUnreachable, "qa.json")
	wantRoles(t, s, "app", "ci")
}

func TestPaths(t *testing.T) {
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"*", "app", true},
		{"*", "acme/app", false},
		{"*/*", "acme/app", true},
		{"acme/*", "acme/", true},
		{"acme/*", "acme/app/x", false},
		{"acme/app:v?", "acme/app:v1", true},
		{"acme/app:v?", "acme/app:v12", false},
		{"acme/app:v?", "acme/app:v/", false},
		{"ACME/app", "acme/app", false},
		{"acme/app", "acme/app", true},
		{"acme/ap", "acme/app", false},
		{"acme/app*", "acme/app", true},
		{"*.md", "README.md", true},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{"**", "app", true},
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[!a-c]x", "dx", true},
		{"[!a-c]x", "ax", false},
		{"[]x]", "]", true},
		{"[a", "[a", true},
		{"[a", "a", false},
		{`a\*`, `ab`, false},
		{"", "", true},
		{"", "a", false},
		{"é?", "éü", true},
	} {
		if got := tufrepo.MatchPath(tt.pattern, tt.path); got != tt.want {
			t.Errorf("%q on %q: got %t, want %t", tt.pattern, tt.path, got, tt.want)
		}
	}
}

// A delegation covers a path only if every delegation above it does.
func TestThreatTUFDelegationOutsideItsPaths(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "acme/*")
	r.delegate("ci", "sub", "*/*")
	r.delegate(metadata.TARGETS, "none")
	for _, role := range []string{"ci", "sub", "none"} {
		r.sign(role, "acme/app", []byte("x"))
		r.sign(role, "other/app", []byte("x"))
	}
	r.publish(metadata.TARGETS, "ci", "sub", "none")
	s := loaded(t, r.client(), nil, "acme/app", "other/app")
	wantRoles(t, s, "acme/app", "ci", "sub")
	wantRoles(t, s, "other/app")
}

// The prefixes are hexadecimal digits of the SHA-256 of the path, whatever a library compares.
func TestPathHashPrefixes(t *testing.T) {
	sum := sha256.Sum256([]byte("acme/app"))
	digits := hex.EncodeToString(sum[:])
	other := "0"
	if digits[0] == '0' {
		other = "1"
	}
	for prefix, want := range map[string]bool{
		digits: true, digits[:1]: true, digits[:7]: true, strings.ToUpper(digits[:8]): true,
		"": false, other: false, digits + "0": false, digits[1:4]: digits[1:4] == digits[:3],
	} {
		r := newRepository(t)
		r.delegate(metadata.TARGETS, "ci").PathHashPrefixes = []string{prefix}
		r.sign("ci", "acme/app", []byte("x"))
		r.publish(metadata.TARGETS, "ci")
		s := loaded(t, r.client(), nil, "acme/app")
		if got := slices.Equal(roles(s, "acme/app"), []string{"ci"}); got != want {
			t.Errorf("prefix %q of %s: got %t, want %t", prefix, digits, got, want)
		}
	}
}

func TestHashBins(t *testing.T) {
	for bits, want := range map[int]struct {
		bins        int
		first, last string
	}{
		1: {2, "b-0", "b-1"}, 3: {8, "b-0", "b-7"}, 4: {16, "b-0", "b-f"}, 5: {32, "b-00", "b-1f"},
		8:  {256, "b-00", "b-ff"},
		10: {1024, "b-000", "b-3ff"},
	} {
		r := newRepository(t)
		r.delegate(metadata.TARGETS, "qa", "*")
		bins := r.split("qa", "b", bits)
		if len(bins) != want.bins || bins[0] != want.first || bins[len(bins)-1] != want.last {
			t.Fatalf("got bins %s to %s, want %+v", bins[0], bins[len(bins)-1], want)
		}
		// Each path is signed in the bin before, in its own, and in the one after.
		var paths []string
		for i := range 40 {
			path := fmt.Sprint("app-", i)
			sum := sha256.Sum256([]byte(path))
			n := (int(sum[0])<<8 | int(sum[1])) >> (16 - bits)
			r.sign(bins[n], path, []byte("right"))
			r.sign(bins[(n+1)%len(bins)], path, []byte("wrong"))
			r.sign(bins[(n+len(bins)-1)%len(bins)], path, []byte("wrong"))
			if len(bins) == 2 {
				delete(r.targets[bins[1-n]].Signed.Targets, path)
			}
			paths = append(paths, path)
		}
		r.publish(append(bins, metadata.TARGETS, "qa")...)
		s := loaded(t, r.client(), nil, paths...)
		for _, path := range paths {
			a := s.Signed(path, today)
			if len(a.Signed) != 1 || a.Signed[0].Length != int64(len("right")) || a.Signed[0].Role != "qa" {
				t.Errorf("%d bits, %s: got %+v, want the target of its own bin, for qa", bits, path, a)
			}
		}
	}
}

func TestHashBinsOfAllBits(t *testing.T) {
	for _, bits := range []int{16, 31, 32} {
		r := newRepository(t)
		r.delegate(metadata.TARGETS, "qa", "*")
		k := newKey(t)
		r.targets["qa"].Signed.Delegations = &metadata.Delegations{
			Keys: map[string]*metadata.Key{k.id: k.public},
			SuccinctRoles: &metadata.SuccinctRoles{
				KeyIDs: []string{k.id}, Threshold: 1, BitLength: bits, NamePrefix: "b",
			},
		}
		name := r.targets["qa"].Signed.Delegations.SuccinctRoles.GetRolesForTarget("app")[0].Name
		r.targets[name] = metadata.Targets(today.AddDate(1, 0, 0))
		r.keys[name] = []*key{k}
		r.sign(name, "app", []byte("x"))
		r.publish(metadata.TARGETS, "qa", name)
		wantRoles(t, loaded(t, r.client(), nil, "app"), "app", "qa")
	}
	for _, bits := range []int{0, 33, -1} {
		r := newRepository(t)
		r.mutate[metadata.TARGETS] = set("delegations", map[string]any{
			"keys": map[string]any{},
			"succinct_roles": map[string]any{
				"keyids": []string{}, "threshold": 1, "bit_length": bits, "name_prefix": "b",
			},
		})
		r.publish(metadata.TARGETS)
		_, err := r.client().Refresh(t.Context(), nil)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "bit_length")
	}
}

func TestTerminating(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "a", "*")
	r.delegate(metadata.TARGETS, "b", "*")
	r.delegate("a", "c", "*")
	r.delegate("a", "d", "*").Terminating = true
	r.delegate("a", "e", "*")
	r.delegate("d", "f", "*")
	all := []string{"a", "b", "c", "d", "e", "f"}
	for _, role := range all {
		r.sign(role, "app", []byte("x"))
	}
	r.publish(append(all, metadata.TARGETS)...)
	s := loaded(t, r.client(), nil, "app")
	wantRoles(t, s, "app", "a", "c", "d", "f")
	wantRejected(t, s, "app", "b", "a delegates the path to d with a terminating delegation before it")
	wantRejected(t, s, "app", "e", "terminating")

	// It ends the search only for the paths that it covers, and whether its role has signed or not.
	r.delegation("a", "d").Paths = []string{"other"}
	r.publish("a")
	s = loaded(t, r.client(), nil, "app")
	wantRoles(t, s, "app", "a", "b", "c", "e")
	r.delegation("a", "d").Paths = []string{"*"}
	r.keys["d"] = []*key{newKey(t)}
	r.hashes = true
	r.publish("a", "d")
	s = loaded(t, r.client(), nil, "app")
	wantRoles(t, s, "app", "a", "c")
}

// The search follows delegations in their order, in depth first.
func TestOrder(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "a", "*")
	r.delegate(metadata.TARGETS, "b", "*")
	r.delegate("a", "c", "*")
	r.sign(metadata.TARGETS, "app", []byte("x"))
	for _, role := range []string{"a", "b", "c"} {
		r.sign(role, "app", []byte("x"))
	}
	r.publish(metadata.TARGETS, "a", "b", "c")
	var got []string
	for _, signed := range loaded(t, r.client(), nil, "app").Signed("app", today).Signed {
		got = append(got, strings.Join(append(signed.Via, signed.Role), ">"))
	}
	if want := []string{"targets", "targets>a", "targets>a>c", "targets>b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestThreatTUFDelegationCycle(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "a", "*")
	r.delegate("a", "b", "*")
	again := *r.delegation(metadata.TARGETS, "a")
	d := r.delegations("b")
	d.Keys[r.keys["a"][0].id] = r.keys["a"][0].public
	again.Name = "b"
	again.KeyIDs = r.delegation("a", "b").KeyIDs
	d.Keys[r.keys["b"][0].id] = r.keys["b"][0].public
	d.Roles = append(d.Roles, again)
	r.sign("b", "app", []byte("x"))
	r.publish(metadata.TARGETS, "a", "b")
	s := loaded(t, r.client(), nil, "app")
	wantRoles(t, s, "app", "b")
	wantRejected(t, s, "app", "b", "delegates in a circle")
}

func TestThreatDeepTUFDelegation(t *testing.T) {
	r := newRepository(t)
	from, all := metadata.TARGETS, []string{metadata.TARGETS}
	for i := range 10 {
		name := fmt.Sprint("level-", i+1)
		r.delegate(from, name, "*")
		r.sign(name, "app", []byte("x"))
		from, all = name, append(all, name)
	}
	r.publish(all...)
	s := loaded(t, r.client(), nil, "app")
	if got := roles(s, "app"); len(got) != 8 {
		t.Errorf("got %q, want the first eight levels", got)
	}
	wantRejected(t, s, "app", "level-9", "more than 8 delegations below targets")
}

func TestThreatTUFDelegationsInTheThousands(t *testing.T) {
	r := newRepository(t)
	var names []string
	for i := range 1000 {
		name := fmt.Sprintf("team-%03d", i)
		r.delegate(metadata.TARGETS, name, name+"/*")
		names = append(names, name)
	}
	r.sign("team-777", "team-777/app", []byte("x"))
	r.publish(append(names, metadata.TARGETS)...)
	c := r.client()
	s := refreshed(t, c, nil)
	r.proxy.Reset()
	s, err := c.Load(t.Context(), s, "team-777/app")
	if err != nil {
		t.Fatal(err)
	}
	wantRoles(t, s, "team-777/app", "team-777")
	if got := r.requests(); len(got) != 1 {
		t.Errorf("got requests %q, want one", got)
	}

	// If all of them cover one path, a bounded number is read.
	for i := range names {
		r.delegations(metadata.TARGETS).Roles[i].Paths = []string{"*"}
	}
	r.publish(metadata.TARGETS)
	s = refreshed(t, c, s)
	r.proxy.Reset()
	if s, err = c.Load(t.Context(), s, "app"); err != nil {
		t.Fatal(err)
	}
	if got := len(r.requests()); got > 1000 {
		t.Errorf("got %d requests, want each file once", got)
	}
	if got := s.Signed("app", today); len(got.Rejected) > 64 ||
		!strings.Contains(got.Rejected[0].Why, "more than 64 roles") {
		t.Errorf("got %+v, want the bound named, and at most 64 rejections", got.Rejected)
	}

	r.mutate[metadata.TARGETS] = func(signed map[string]any) {
		d := signed["delegations"].(map[string]any)
		all := d["roles"].([]any)
		for range 3 {
			for i := range 1000 {
				next := map[string]any{}
				for k, v := range all[i].(map[string]any) {
					next[k] = v
				}
				next["name"] = fmt.Sprintf("more-%d", len(all))
				all = append(all, next)
			}
		}
		for i := range 200 {
			next := map[string]any{}
			for k, v := range all[i].(map[string]any) {
				next[k] = v
			}
			next["name"] = fmt.Sprintf("more-%d", len(all))
			all = append(all, next)
		}
		d["roles"] = all
	}
	r.publish(metadata.TARGETS)
	_, err = c.Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonTooLarge, "4096 delegations")
}

func TestThreatTUFPatternsWithoutEnd(t *testing.T) {
	r := newRepository(t)
	var patterns []string
	for i := range 600 {
		patterns = append(patterns, strings.Repeat("*a", 500)+fmt.Sprint(i))
	}
	r.delegate(metadata.TARGETS, "ci", patterns...)
	r.publish(metadata.TARGETS, "ci")
	_, err := r.client().Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonTooLarge, "targets.json", "paths of more than 524288 bytes")
}

func TestThreatTUFPathTraversal(t *testing.T) {
	for _, name := range []string{
		"../qa", "/qa", "a/../qa", "a//qa", ".", "..", "a/./b", `..\qa`, "qa\x00", "root", "timestamp", "targets", "",
		strings.Repeat("q", 300),
	} {
		r := newRepository(t)
		r.delegate(metadata.TARGETS, "good", "*")
		r.sign("good", "app", []byte("x"))
		r.delegate(metadata.TARGETS, "bad", "*")
		r.mutate[metadata.TARGETS] = func(signed map[string]any) {
			signed["delegations"].(map[string]any)["roles"].([]any)[1].(map[string]any)["name"] = name
		}
		r.publish(metadata.TARGETS, "good")
		r.snapshot.Signed.Meta[name+".json"] = metadata.MetaFile(1)
		r.publish()
		if name == "targets" { // its entry has just been overwritten
			r.write(metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP)
		}
		c := r.client()
		s := refreshed(t, c, nil)
		r.proxy.Reset()
		s, err := c.Load(t.Context(), s, "app")
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got, want := r.requests(), []string{"/1.good.json"}; !slices.Equal(got, want) {
			t.Errorf("%q: got requests %q, want %q", name, got, want)
		}
		wantRoles(t, s, "app", "good")
		wantRejected(t, s, "app", name, "does not count")
	}
	// Names that only look odd are escaped.
	for _, name := range []string{"team/qa", "a b", "a?b#c%2Fd", "qa..x", "é"} {
		r := newRepository(t)
		r.delegate(metadata.TARGETS, name, "*")
		r.sign(name, "app", []byte("x"))
		r.publish(metadata.TARGETS, name)
		r.put("/1."+tufrepo.EscapedName(name)+".json", r.signed(name, r.targets[name].Signed))
		wantRoles(t, loaded(t, r.client(), nil, "app"), "app", name)
	}
}

// A role that may sign a few paths must not speak for a role of targets with keys of its own.
func TestThreatTUFRoleNameOfAnother(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "team", "acme/*")
	r.delegate(metadata.TARGETS, "qa", "other/*")
	r.delegate("team", "qa", "acme/*")
	r.keys["qa"] = r.keys["qa"][1:] // the key of the team
	r.sign("qa", "acme/app", []byte("x"))
	r.publish(metadata.TARGETS, "team", "qa")
	s := loaded(t, r.client(), nil, "acme/app")
	wantRoles(t, s, "acme/app")
	wantRejected(t, s, "acme/app", "qa", "as delegated by team", "belongs to a delegation of targets")
}

// Two roles delegate to a third with keys of their own: each delegation is verified by itself.
func TestThreatTUFRoleOfTwoDelegators(t *testing.T) {
	r := newRepository(t)
	r.hashes = true
	r.delegate(metadata.TARGETS, "a", "a/*")
	r.delegate(metadata.TARGETS, "b", "b/*")
	r.delegate("a", "release", "a/*")
	r.delegate("b", "release", "b/*")
	r.keys["release"] = r.keys["release"][:1] // only the key that a lists
	r.sign("release", "a/app", []byte("x"))
	r.sign("release", "b/app", []byte("x"))
	r.publish(metadata.TARGETS, "a", "b", "release")
	s := loaded(t, r.client(), nil, "a/app", "b/app")
	wantRoles(t, s, "a/app", "release")
	wantRoles(t, s, "b/app")
	wantRejected(t, s, "b/app", "release", "by 0 of the role's keys, and needs 1")
}

func TestThreatTUFOneKeyCountedTwice(t *testing.T) {
	one, two := newKey(t), newECDSAKey(t)
	for name, tt := range map[string]struct {
		keys      map[string]*metadata.Key // by the ID that they are listed under
		threshold int
		signers   []*key
		want      bool
		words     string
	}{
		"two keys": {
			map[string]*metadata.Key{one.id: one.public, two.id: two.public}, 2, []*key{one, two}, true, "",
		},
		"one of two": {
			map[string]*metadata.Key{one.id: one.public, two.id: two.public}, 2, []*key{one}, false,
			"by 1 of the role's keys, and needs 2",
		},
		"one under two IDs": {
			map[string]*metadata.Key{one.id: one.public, "x": one.public}, 2, []*key{one, renamed(one, "x")}, false,
			"by 1 of",
		},
		"one in two writings": {
			map[string]*metadata.Key{two.id: two.public, "x": written(two, "ecdsa-sha2-nistp256")}, 2,
			[]*key{two, renamed(two, "x")}, false, "by 1 of",
		},
		"a threshold of 0": {
			map[string]*metadata.Key{one.id: one.public}, 0, []*key{one}, false, "threshold of 0",
		},
		"a threshold of 0, unsigned": {map[string]*metadata.Key{one.id: one.public}, 0, nil, false, "threshold of 0"},
		"a negative threshold": {
			map[string]*metadata.Key{one.id: one.public}, -1, []*key{one}, false, "threshold of -1",
		},
		"no keys": {map[string]*metadata.Key{}, 1, []*key{one}, false, "by 0 of"},
		"an unknown type beside": {
			map[string]*metadata.Key{one.id: one.public, "x": written(one, "falcon")}, 1,
			[]*key{one, renamed(one, "x")}, true, "",
		},
		"an unknown type alone": {
			map[string]*metadata.Key{"x": written(one, "falcon")}, 1, []*key{renamed(one, "x")}, false, "by 0 of",
		},
		"an unknown scheme": {
			map[string]*metadata.Key{"x": {Type: "ed25519", Scheme: "rot13", Value: one.public.Value}}, 1,
			[]*key{renamed(one, "x")}, false, "by 0 of",
		},
		"a short key": {
			map[string]*metadata.Key{
				"x": {Type: "ed25519", Scheme: "ed25519", Value: metadata.KeyVal{PublicKey: "00"}},
			}, 1, []*key{renamed(one, "x")}, false, "by 0 of",
		},
		"another key's signature": {
			map[string]*metadata.Key{one.id: one.public}, 1, []*key{renamed(two, one.id)}, false, "by 0 of",
		},
		"a further wrong one": {
			map[string]*metadata.Key{one.id: one.public, two.id: two.public}, 1, []*key{one, renamed(one, two.id)},
			true, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.hashes = true
			d := r.delegate(metadata.TARGETS, "ci", "*")
			d.KeyIDs, d.Threshold = nil, tt.threshold
			for id, k := range tt.keys {
				r.delegations(metadata.TARGETS).Keys[id] = k
				d.KeyIDs = append(d.KeyIDs, id)
			}
			r.keys["ci"] = tt.signers
			r.sign("ci", "app", []byte("x"))
			r.publish(metadata.TARGETS, "ci")
			s := loaded(t, r.client(), nil, "app")
			if !tt.want {
				wantRoles(t, s, "app")
				wantRejected(t, s, "app", "ci", tt.words)
				return
			}
			wantRoles(t, s, "app", "ci")
		})
	}
}

func renamed(k *key, id string) *key { return &key{Signer: k.Signer, public: k.public, id: id} }

func written(k *key, keyType string) *metadata.Key {
	other := &metadata.Key{Type: keyType, Scheme: k.public.Scheme, Value: k.public.Value}
	return other
}

func TestThreatTwoTUFSignaturesByOneKeyID(t *testing.T) {
	r := newRepository(t)
	r.keys[metadata.TIMESTAMP] = append(r.keys[metadata.TIMESTAMP], r.keys[metadata.TIMESTAMP]...)
	r.publish()
	_, err := r.client().Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "has two signatures")
}

func TestThreatTUFSignaturesInTheHundreds(t *testing.T) {
	r := newRepository(t)
	for i := range 100 {
		r.keys[metadata.TIMESTAMP] = append(r.keys[metadata.TIMESTAMP],
			renamed(r.keys[metadata.TIMESTAMP][0], fmt.Sprint(i)))
	}
	r.publish()
	_, err := r.client().Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonTooLarge, "more than the 64 signatures")
}

func TestThreatTUFRevokedKey(t *testing.T) {
	stolen := newECDSAKey(t)
	pem := stolen.public.Value.PublicKey
	for name, listed := range map[string]*key{
		"as before":         stolen,
		"under another ID":  renamed(stolen, "harmless"),
		"with another type": {Signer: stolen.Signer, public: written(stolen, "ecdsa-sha2-nistp256"), id: "harmless"},
		"with another line end": {Signer: stolen.Signer, id: "harmless", public: &metadata.Key{
			Type: "ecdsa", Scheme: stolen.public.Scheme,
			Value: metadata.KeyVal{PublicKey: strings.ReplaceAll(pem, "\n", "\r\n") + "\n\n"},
		}},
		"with a further field": {Signer: stolen.Signer, id: "harmless", public: &metadata.Key{
			Type: "ecdsa", Scheme: stolen.public.Scheme, Value: stolen.public.Value,
			UnrecognizedFields: map[string]any{"x": "y"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.hashes = true
			d := r.delegate(metadata.TARGETS, "ci", "*")
			d.KeyIDs = []string{listed.id}
			r.delegations(metadata.TARGETS).Keys[listed.id] = listed.public
			r.keys["ci"] = []*key{listed}
			r.sign("ci", "app", []byte("x"))
			r.publish(metadata.TARGETS, "ci")
			wantRoles(t, loaded(t, r.client(), nil, "app"), "app", "ci")
			s := loaded(t, r.client(func(c *tufrepo.Config) { c.RevokedKeys = []string{stolen.id} }), nil, "app")
			wantRoles(t, s, "app")
			wantRejected(t, s, "app", "ci", "revoked")
			fingerprint := fingerprintOf(t, stolen)
			s = loaded(t, r.client(func(c *tufrepo.Config) { c.RevokedKeys = []string{fingerprint} }), nil, "app")
			wantRoles(t, s, "app")
			wantRejected(t, s, "app", "ci", "revoked")
		})
	}
	r := newRepository(t)
	c := r.client(func(c *tufrepo.Config) { c.RevokedKeys = []string{r.keys[metadata.SNAPSHOT][0].id} })
	_, err := c.Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonKeyRevoked, "snapshot.json", r.keys[metadata.SNAPSHOT][0].id)
}

// fingerprintOf returns the SHA-256 of a key's SubjectPublicKeyInfo.
func fingerprintOf(t *testing.T, k *key) string {
	t.Helper()
	public, err := k.public.ToPublicKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// That a revoked key has signed the file of a delegation is a verdict, even where no hash binds the
// file: it hides no other role, and is no outage.
func TestThreatTUFRevokedKeyOfADelegationWithoutHashes(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.delegate(metadata.TARGETS, "qa", "*")
	r.sign("ci", "app", []byte("x"))
	r.sign("qa", "app", []byte("x"))
	r.publish(metadata.TARGETS, "ci", "qa")
	c := r.client(func(c *tufrepo.Config) { c.RevokedKeys = []string{r.keys["ci"][0].id} })
	s, err := c.Load(t.Context(), refreshed(t, c, nil), "app")
	if err != nil {
		t.Errorf("got %v, want a verdict", err)
	}
	wantRoles(t, s, "app", "qa")
	wantRejected(t, s, "app", "ci", "revoked")
	if a := s.Signed("app", today); len(a.Missing) > 0 || len(a.Faults) > 0 {
		t.Errorf("got %q missing and faults %v, want neither", a.Missing, a.Faults)
	}
}

// A target that no known hash binds is signed by no role, and has no content.
func TestTargetWithoutAKnownHash(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	for _, role := range []string{metadata.TARGETS, "ci"} {
		r.targets[role].Signed.Targets["app"] = &metadata.TargetFiles{
			Length: 1, Hashes: metadata.Hashes{"blake2b": make([]byte, 64)},
		}
	}
	r.publish(metadata.TARGETS, "ci")
	c := r.client()
	s := loaded(t, c, nil, "app")
	wantRoles(t, s, "app")
	wantRejected(t, s, "app", "ci", "without a sha256 or sha512 hash")
	wantRejected(t, s, "app", metadata.TARGETS, "without a sha256 or sha512 hash")
	if _, err := c.Target(t.Context(), s, "app"); !errors.Is(err, trust.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound: nothing binds the content", err)
	}
}

func TestDelegatedRoleThatDoesNotCount(t *testing.T) {
	for name, tt := range map[string]struct {
		hashes bool
		spoil  func(r *repository)
		words  string // of the rejection
		reason string // of the fault, instead
	}{
		"expired": {
			spoil: func(r *repository) { r.targets["ci"].Signed.Expires = today },
			words: "expired at 2026-03-01T12:00:00Z",
		},
		"never published": {
			spoil: func(r *repository) { delete(r.snapshot.Signed.Meta, "ci.json") },
			words: "is not listed in snapshot.json",
		},
		"signed by another key, bound by a hash": {
			hashes: true, spoil: func(r *repository) { r.keys["ci"] = []*key{newKey(r.t)}; r.publish("ci") },
			words: "by 0 of",
		},
		"signed by another key, bound by nothing": {
			spoil:  func(r *repository) { r.keys["ci"] = []*key{newKey(r.t)}; r.publish("ci") },
			reason: v1alpha1.ReasonMetadataInvalid,
		},
		"malformed, bound by a hash": {
			hashes: true, spoil: func(r *repository) { r.mutate["ci"] = unset("targets"); r.publish("ci") },
			words: "targets",
		},
		"of another hash": {
			hashes: true, spoil: func(r *repository) {
				r.put("/2.ci.json", append(slices.Clone(r.served("/2.ci.json")[:len(r.served("/2.ci.json"))-1]), ' '))
			}, reason: v1alpha1.ReasonMetadataInvalid,
		},
		"of another version": {
			spoil:  func(r *repository) { r.put("/2.ci.json", r.served("/1.ci.json")) },
			reason: v1alpha1.ReasonMetadataInvalid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			r.hashes = tt.hashes
			r.delegate(metadata.TARGETS, "ci", "*")
			r.sign("ci", "app", []byte("x"))
			r.publish(metadata.TARGETS, "ci")
			if name != "never published" {
				r.publish("ci")
			}
			tt.spoil(r)
			if name == "expired" {
				r.publish("ci")
			} else {
				r.publish()
			}
			c := r.client()
			s, err := c.Load(t.Context(), refreshed(t, c, nil), "app")
			wantRoles(t, s, "app")
			if tt.reason != "" {
				wantFault(t, err, tt.reason, "ci.json")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRejected(t, s, "app", "ci", tt.words)
		})
	}
}

// A role below one that has expired does not count either.
func TestChildOfAnExpiredRole(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "a", "*")
	r.delegate("a", "b", "*")
	r.sign("b", "app", []byte("x"))
	r.targets["a"].Signed.Expires = today.AddDate(0, 0, -1)
	r.publish(metadata.TARGETS, "a", "b")
	s := loaded(t, r.client(), nil, "app")
	wantRoles(t, s, "app")
	wantRejected(t, s, "app", "b", "a file above it expired")
}

func TestLoadAll(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "acme/*")
	r.delegate(metadata.TARGETS, "qa", "acme/*")
	bins := r.split("qa", "bin", 2)
	r.sign("ci", "acme/app:v1", []byte("x"))
	for i := range 8 {
		path := fmt.Sprintf("acme/app:v%d", i)
		sum := sha256.Sum256([]byte(path))
		r.sign(bins[sum[0]>>6], path, []byte("x"))
	}
	r.publish(append(bins, metadata.TARGETS, "ci", "qa")...)
	c := r.client()
	s, err := c.LoadAll(t.Context(), refreshed(t, c, nil))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	s.Paths(func(path string) bool { seen[path] = true; return true })
	if len(seen) != 8 {
		t.Errorf("got paths %v, want eight", seen)
	}
	wantRoles(t, s, "acme/app:v1", "ci", "qa")
	wantRoles(t, s, "acme/app:v2", "qa")
	if a := s.Signed("acme/app:v2", today); len(a.Missing) != 0 {
		t.Errorf("got %q missing, want nothing", a.Missing)
	}
}
