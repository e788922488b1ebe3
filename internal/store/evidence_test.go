package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/trust"
)

// estate returns evidence of n repositories.
func estate(n int) evidence {
	e := evidence{}.clone()
	for i := range n {
		e.set(acmeKey(fmt.Sprintf("registry.example.com/acme/app-%d", i)), &cached{evidence: &fact{}})
	}
	return e
}

// A snapshot in use does not change when its clones change.
func TestClonesAreApart(t *testing.T) {
	before := estate(100)
	k, other, further := acmeKey("registry.example.com/acme/app-7"), acmeKey(
		"registry.example.com/acme/app-8"), acmeKey("registry.example.com/acme/new")
	was := before.get(k)
	one, two := before.clone(), before.clone()
	one.set(k, &cached{})
	one.set(other, nil)
	two.set(further, &cached{})
	if before.get(k) != was || before.get(other) == nil || before.get(further) != nil {
		t.Error("the published snapshot changed")
	}
	if one.get(k) == was || one.get(other) != nil || one.get(further) != nil || two.get(k) != was ||
		two.get(further) == nil {
		t.Error("the clone lacks the evidence that was set in it")
	}
}

// A decision, which finds one subject, and a list of all subjects see the same evidence, in each of
// the snapshots that are in use at once.
func TestLookupAndListAgree(t *testing.T) {
	var keys []trust.Key
	for i := range 200 {
		repository := fmt.Sprintf("registry.example.com/acme/app-%d", i/4)
		keys = append(keys, trust.Key{
			Root: "acme", Subject: trust.Subject{Repository: repository, Digest: fmt.Sprintf("sha256:%064d", i%4)},
		})
	}
	type generation struct {
		evidence evidence
		want     map[trust.Key]*cached
	}
	last := generation{evidence{}, map[trust.Key]*cached{}}
	var all []generation
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		next := generation{last.evidence.clone(), maps.Clone(last.want)}
		for range 20 {
			k := keys[random.IntN(len(keys))]
			if random.IntN(3) == 0 {
				next.evidence.set(k, nil)
				delete(next.want, k)
				continue
			}
			h := &cached{}
			next.evidence.set(k, h)
			next.want[k] = h
		}
		all, last = append(all, next), next
	}
	for i, g := range all {
		if listed := maps.Collect(g.evidence.all()); !maps.Equal(listed, g.want) {
			t.Errorf("generation %d lists %d subjects other than the %d that were set", i, len(listed), len(g.want))
		}
		for _, k := range keys {
			if got := g.evidence.get(k); got != g.want[k] {
				t.Errorf("generation %d: %s: got %p, want %p", i, k.Subject, got, g.want[k])
			}
		}
	}
}

func TestRangesOfEvidence(t *testing.T) {
	e := evidence{}.clone()
	var want []trust.Key
	for _, k := range []trust.Key{
		{Root: "a", Subject: trust.Subject{Repository: "r"}},
		{Root: "b", Subject: trust.Subject{Repository: "q", Pulled: "p", Digest: digestOne}},
		{Root: "b", Subject: trust.Subject{Repository: "r", Pulled: "m", Digest: digestOne}},
		{Root: "b", Subject: trust.Subject{Repository: "r", Pulled: "p", Digest: digestOne}},
		{Root: "b", Subject: trust.Subject{Repository: "r", Pulled: "p", Tag: "v1"}},
		{Root: "b", Subject: trust.Subject{Repository: "r-2", Pulled: "p", Digest: digestOne}},
		{Root: "c", Subject: trust.Subject{Repository: "r"}},
	} {
		e.set(k, &cached{})
		want = append(want, k)
	}
	ranges := map[string]struct {
		of   func(yield func(trust.Key, *cached) bool)
		want []trust.Key
	}{
		"all":           {e.all(), want},
		"a trust root":  {e.under("b"), want[1:6]},
		"a repository":  {e.of(want[4]), want[3:5]},
		"none":          {e.of(trust.Key{Root: "b", Subject: trust.Subject{Repository: "s"}}), nil},
		"of no root":    {e.under("bb"), nil},
		"nothing there": {evidence{}.all(), nil},
	}
	for name, r := range ranges {
		var got []trust.Key
		for k := range r.of {
			got = append(got, k)
		}
		if diff := cmp.Diff(r.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// BenchmarkPublication measures the publication of a snapshot with other evidence about one
// repository, among 10 and among 10,000 others.
func BenchmarkPublication(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("size=%d", n), func(b *testing.B) {
			bench := newBench(&scripted{})
			k := acmeKey("registry.example.com/acme/app-7")
			bench.update(func(old *Snapshot) *Snapshot {
				next := *old
				next.evidence = estate(n)
				return &next
			})
			root := bench.Load().Root("acme").Verifier
			b.ReportAllocs()
			for b.Loop() {
				if published, _ := bench.putEvidence(k, root, bench.Load().evidence.get(k),
					&cached{evidence: &fact{}}); !published {
					b.Fatal("not published")
				}
			}
		})
	}
}
