package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// world is a small random cluster: few roles, roots and digests, so that everything often meets.
type world struct {
	specs map[string]*v1alpha1.ImagePolicySpec
	roots roots
	image string
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

func randomSpec(rnd *rand.Rand) *v1alpha1.ImagePolicySpec {
	s := spec(mode(pick(rnd, v1alpha1.ModeEnforce, v1alpha1.ModeEnforce, v1alpha1.ModeEnforce, v1alpha1.ModeWarn)))
	names := []v1alpha1.ObjectName{"a", "b", "c"}
	rnd.Shuffle(3, func(i, j int) { names[i], names[j] = names[j], names[i] })
	s.TrustRoots = names[:1+rnd.IntN(3)]
	if rnd.IntN(10) == 0 {
		unsignedAllowed(s)
		return s
	}
	var needs []string
	for range 1 + rnd.IntN(2) {
		needs = append(needs, pick(rnd, "ci", "qa", "1 of ci qa", "2 of ci qa dev"))
	}
	requires(needs...)(s)
	return s
}

func randomWorld(rnd *rand.Rand) world {
	w := world{
		specs: map[string]*v1alpha1.ImagePolicySpec{}, roots: roots{},
		image: pick(rnd, app, app, app, app+"@"+digest("a"), repository+"@"+digest("a")),
	}
	for i := range 1 + rnd.IntN(3) {
		w.specs[fmt.Sprint("p", i)] = randomSpec(rnd)
	}
	for _, root := range []string{"a", "b", "c"} {
		h := &held{}
		for range rnd.IntN(8) {
			h.statements = append(h.statements, trust.Statement{
				Role: pick(rnd, "ci", "qa", "dev", "other"), Tag: pick(rnd, "v1", "v1", "v1", "v2", ""),
				Digest:   digest(pick(rnd, "a", "a", "b")),
				NotAfter: pick(rnd, time.Time{}, time.Time{}, now.Add(time.Hour), now),
			})
		}
		h.sort()
		w.roots[root] = h
		if rnd.IntN(12) == 0 {
			w.roots[root] = pick[any](rnd, unreachable, policy.ErrNotLoaded, unusable("no keys"), nothing{},
				h.until(now))
		}
	}
	return w
}

func (w world) decide(t *testing.T) policy.Decision {
	t.Helper()
	var policies []*policy.Policy
	for name, s := range w.specs { // in the random order of maps
		p, err := policy.Compile(name, s)
		if err != nil {
			t.Fatal(err)
		}
		policies = append(policies, p)
	}
	return decide(w.image, w.roots, policies...)
}

// proven reports whether a root of the spec has a signature of the digest by the role. It is
// independent of the code under test.
func (w world) proven(s *v1alpha1.ImagePolicySpec, role v1alpha1.RoleName, want string) bool {
	for _, root := range s.TrustRoots {
		h, ok := w.roots[string(root)].(*held)
		if !ok || !h.notAfter.IsZero() {
			continue
		}
		for _, st := range h.statements {
			rightTag := st.Tag == "v1" || st.Tag == "" || !strings.Contains(w.image, ":v1")
			if st.Role == string(role) && st.Digest == want && rightTag &&
				(st.NotAfter.IsZero() || st.NotAfter.After(now)) {
				return true
			}
		}
	}
	return false
}

// holds reports whether every policy in mode Enforce holds for the digest.
func (w world) holds(want string) bool {
	for _, s := range w.specs {
		for _, r := range s.RequiredRoles {
			need, roles := 1, r.AnyOf
			if r.Threshold != nil {
				need = int(*r.Threshold)
			}
			if r.Role != "" {
				roles = []v1alpha1.RoleName{r.Role}
			}
			n := 0
			for _, role := range roles {
				if w.proven(s, role, want) {
					n++
				}
			}
			if s.Mode == v1alpha1.ModeEnforce && n < need {
				return false
			}
		}
	}
	return true
}

func (w world) requires() bool {
	for _, s := range w.specs {
		if s.Mode == v1alpha1.ModeEnforce && len(s.RequiredRoles) > 0 {
			return true
		}
	}
	return false
}

const ambiguous = "neither is chosen"

// inWorlds tests a property in many worlds, from a fixed seed. It fails if the property applied to
// too few of them.
func inWorlds(t *testing.T, enough int, property func(rnd *rand.Rand, w world) bool) {
	t.Helper()
	relevant := 0
	for seed := range uint64(2500) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		if property(rnd, randomWorld(rnd)) {
			relevant++
		}
		if t.Failed() {
			t.Fatalf("in world %d", seed)
		}
	}
	if relevant < enough {
		t.Errorf("got %d worlds to which the property applies, want more", relevant)
	}
}

func TestThreatNoRoleIsSatisfiedByAnother(t *testing.T) {
	inWorlds(t, 250, func(_ *rand.Rand, w world) bool {
		d := w.decide(t)
		if d.Verdict != policy.Admitted || !w.requires() {
			return false
		}
		if d.Digest == "" || !w.holds(d.Digest) {
			t.Errorf("admitted %q, for which a required role has not signed: %+v", d.Digest, w.specs)
		}
		return true
	})
}

func TestNoDenialWithoutReason(t *testing.T) {
	inWorlds(t, 250, func(_ *rand.Rand, w world) bool {
		d := w.tagged().decide(t)
		if d.Verdict == policy.Admitted {
			return false
		}
		holds := 0
		for _, letter := range []string{"a", "b"} {
			if w.holds(digest(letter)) && (!strings.Contains(w.image, "@") || letter == "a") {
				holds++
			}
		}
		isAmbiguous := strings.Contains(d.Message, ambiguous)
		if d.Verdict == policy.Denied && (isAmbiguous != (holds == 2) || holds == 1) {
			t.Errorf("%d digests hold, and yet: %s", holds, d.Message)
		}
		return d.Verdict == policy.Denied
	})
}

// tagged drops the statements without a tag. Such a statement proves a digest, and another root
// must resolve the tag.
func (w world) tagged() world {
	for _, r := range w.roots {
		if h, ok := r.(*held); ok {
			h.statements = slices.DeleteFunc(h.statements, func(s trust.Statement) bool { return s.Tag == "" })
		}
	}
	return w
}

func TestAddingAPolicyNeverAdmits(t *testing.T) {
	inWorlds(t, 250, func(rnd *rand.Rand, w world) bool {
		before := w.tagged().decide(t)
		if before.Verdict == policy.Admitted {
			return false
		}
		w.specs[pick(rnd, "0", "p1a", "z")] = randomSpec(rnd)
		after := w.decide(t)
		// A tighter policy may leave one of two rivals: the digest that it leaves held before as
		// well.
		if after.Verdict == policy.Admitted &&
			(!strings.Contains(before.Message, ambiguous) || !w.holds(after.Digest)) {
			t.Errorf("denied before (%s), then admitted as %q", before.Message, after.Digest)
		}
		return true
	})
}

func TestRemovingAStatementNeverAdmits(t *testing.T) {
	inWorlds(t, 150, func(rnd *rand.Rand, w world) bool {
		before := w.decide(t)
		h, ok := w.roots[pick(rnd, "a", "b", "c")].(*held)
		if !ok || before.Verdict == policy.Admitted || len(h.statements) == 0 {
			return false
		}
		i := rnd.IntN(len(h.statements))
		h.statements = slices.Delete(h.statements, i, i+1)
		after := w.decide(t)
		// Revoking one of two rivals is what the denial asks for.
		if after.Verdict == policy.Admitted && !strings.Contains(before.Message, ambiguous) {
			t.Errorf("denied before (%s), then admitted as %q", before.Message, after.Digest)
		}
		return true
	})
}

func TestDecisionDoesNotDependOnTheOrderOfPolicies(t *testing.T) {
	inWorlds(t, 250, func(_ *rand.Rand, w world) bool {
		first := w.decide(t)
		for range 3 {
			if diff := cmp.Diff(first, w.decide(t)); diff != "" {
				t.Errorf("(-first +again):\n%s", diff)
			}
		}
		return len(w.specs) > 1
	})
}

func FuzzDecide(f *testing.F) {
	f.Add(app, "registry.example.com/acme/**", "ci", "qa", "v1", digest("a"), "x", uint8(0))
	f.Add(app+"@"+digest("a"), "*/**", "ci", "ci", "v1", digest("a"), "\n", uint8(1))
	f.Add(repository+"@"+digest("b"), "registry.example.com/acme/app", "targets/releases", "qa", "", "sha256:b", "\xff",
		uint8(2))
	f.Add("nginx", "nginx", "", "0", "latest", "", "", uint8(3))
	f.Fuzz(func(t *testing.T, image, pattern, role, signer, tag, sum, text string, kind uint8) {
		s := spec(images(v1alpha1.ImagePattern(pattern)),
			require(v1alpha1.RoleRequirement{Role: v1alpha1.RoleName(role)}))
		p, err := policy.Compile("fuzzed", s)
		answer := []any{
			&held{statements: []trust.Statement{{Role: signer, Tag: tag, Digest: sum}}},
			trust.NewFault(text, "%s", text), unusable(text), policy.ErrNotLoaded,
		}[kind%4]
		d := policy.NewSet(policy.UncoveredDeny, []*policy.Policy{p}).Decide(policy.Request{Image: image, Now: now},
			roots{"acme-notary": answer})
		if len(d.Message) > 1500 || strings.Contains(d.Message, "\n") ||
			(d.Message == "") != (d.Verdict == policy.Admitted) {
			t.Fatalf("verdict %d, message %q", d.Verdict, d.Message)
		}
		if d.Verdict != policy.Admitted {
			return
		}
		if err != nil || kind%4 != 0 || role != signer || d.Digest != sum || d.Image.Digest != "" &&
			d.Image.Digest != sum ||
			d.Image.Tag != "" && tag != "" && d.Image.Tag != tag {
			t.Fatalf("admitted %q by %q under %q as %q for the role %q: %+v", image, signer, tag, sum, role, d)
		}
	})
}
