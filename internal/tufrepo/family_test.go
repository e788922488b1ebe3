package tufrepo_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// A pattern that matches a path may match the path's family: otherwise a signature would be missed.
func TestFamiliesMissNoPath(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func(alphabet string, most int) string {
		var b strings.Builder
		for range random.IntN(most + 1) {
			b.WriteByte(alphabet[random.IntN(len(alphabet))])
		}
		return b.String()
	}
	matched := 0
	for range 300_000 {
		family := tufrepo.Family{Prefix: text("ab/:", 5), Suffix: text("ab/", 2)}
		path := family.Prefix + text("ab", 3) + family.Suffix
		pattern := text("ab/:*?[]!-", 7)
		if tufrepo.MatchPath(pattern, path) {
			matched++
			if !family.MayMatch(pattern) {
				t.Fatalf("%q matches %q, and not the family %+v", pattern, path, family)
			}
		}
	}
	if matched < 1000 {
		t.Errorf("got %d matches, want at least 1000 to compare", matched)
	}
}

func TestFamiliesOfOtherPaths(t *testing.T) {
	family := tufrepo.Family{Prefix: "registry.example.com/acme/app:", Suffix: ".img"}
	for pattern, want := range map[string]bool{
		"registry.example.com/acme/*": true, "registry.example.com/acme/app:v*": true, "*/*/*.img": true,
		"registry.example.com/acme/app:v1.img": true, "registry.example.com/acme/a*": true,
		"registry.example.com/other/*": false, "registry.example.com/acme/b*": false, "registry.example.com/*": false,
		"registry.example.com/acme/*.txt": false, "registry.example.com/acme/apps:*": false,
		"registry.example.com/acme/*/*": false, "": false,
	} {
		if got := family.MayMatch(pattern); got != want {
			t.Errorf("%q: got %v, want %v", pattern, got, want)
		}
	}
}

// LoadFamilies loads the files that may list a path of a family, in all levels, and no other.
func TestLoadFamilies(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "acme/*")
	r.delegate(metadata.TARGETS, "other", "other/*")
	r.delegate(metadata.TARGETS, "hashed").PathHashPrefixes = []string{"0"}
	r.delegate("ci", "below", "acme/app:*")
	r.delegate("ci", "beside", "acme/other:*")
	bins := r.split("below", "bin", 3)
	r.delegate(metadata.TARGETS, "unpublished", "acme/*")
	r.publish(append([]string{metadata.TARGETS, "ci", "other", "hashed", "below", "beside"}, bins...)...)
	c := r.client()
	s := refreshed(t, c, nil)
	r.proxy.Reset()
	family := tufrepo.Family{Prefix: "acme/app:"}
	if !s.Lacks("", family) || len(s.Unloaded(family)) == 0 {
		t.Error("got nothing unloaded before LoadFamilies, want what the family needs")
	}
	s, err := c.LoadFamilies(t.Context(), s, family)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/1.below.json", "/1.ci.json", "/1.hashed.json"}
	for _, bin := range bins {
		want = append(want, "/1."+bin+".json")
	}
	slices.Sort(want)
	if got := r.requests(); !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
	if s.Lacks("", family) || s.Lacks("acme/app:v1", tufrepo.Family{}) || !s.Lacks("other/app", tufrepo.Family{}) {
		t.Error("got the family lacking, or another path not, after LoadFamilies")
	}
	again, err := c.LoadFamilies(t.Context(), s, family)
	if err != nil || again != s {
		t.Errorf("got another State (%v), want the same: all is loaded", err)
	}
}

// A file that could not be loaded is named with its own fault.
func TestFaultsOfUnloadedFiles(t *testing.T) {
	r := newRepository(t)
	for _, name := range []string{"ci", "qa", "security"} {
		r.delegate(metadata.TARGETS, name, "*")
	}
	r.publish(metadata.TARGETS, "ci", "qa", "security")
	c := r.client()
	r.proxy.Set(faultproxy.Fault{Match: ends("/1.qa.json"), Status: 500},
		faultproxy.Fault{Match: ends("/1.security.json"), Drop: true})
	s, _ := c.Load(t.Context(), refreshed(t, c, nil), "app")
	for _, faults := range [][]string{texts(s.Signed("app", today).Faults), texts(s.Unloaded(tufrepo.Family{}))} {
		if len(faults) != 2 || !strings.Contains(faults[0], "qa.json") ||
			!strings.Contains(faults[1], "security.json") ||
			faults[0] == faults[1] {
			t.Errorf("got faults %q, want one of qa.json and one of security.json", faults)
		}
	}
	r.proxy.Set()
	s, err := c.Load(t.Context(), s, "app")
	if faults := s.Signed("app", today).Faults; err != nil || len(faults) > 0 {
		t.Errorf("got %v and faults %v once the server answers, want none", err, faults)
	}
}

func texts[T error](faults []T) []string {
	var all []string
	for _, f := range faults {
		all = append(all, f.Error())
	}
	slices.Sort(all)
	return all
}

// Each signature says which role delegates to its role, and each target which files it depends on.
func TestDelegatorAndFiles(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "team", "*")
	r.delegate("team", "qa", "*")
	bins := r.split("qa", "bin", 1)
	for _, name := range append([]string{metadata.TARGETS, "team", "qa"}, bins...) {
		r.sign(name, "app", []byte("x"))
	}
	r.publish(append([]string{metadata.TARGETS, "team", "qa"}, bins...)...)
	a := loaded(t, r.client(), nil, "app").Signed("app", today)
	got := []string{}
	for _, s := range a.Signed {
		got = append(got, fmt.Sprintf("%s:%s:%s", s.File, s.Role, s.By))
	}
	bin := a.Signed[len(a.Signed)-1].File
	want := []string{"targets:targets:", "team:team:targets", "qa:qa:team", bin + ":qa:team"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	files := []string{}
	for _, f := range a.Files {
		files = append(files, f.Name)
	}
	if want := []string{"team.json", "qa.json", bin + ".json"}; !slices.Equal(files, want) {
		t.Errorf("got files %q, want %q", files, want)
	}
}
