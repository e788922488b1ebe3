package identity

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestQuorum(t *testing.T) {
	soon, later, past := now.Add(time.Hour), now.Add(2*time.Hour), now.Add(-time.Second)
	cases := map[string]struct {
		signers   []Signer
		threshold int
		want      []Signer
		until     time.Time
		ok        bool
	}{
		"nothing":                  {nil, 1, nil, time.Time{}, false},
		"nothing, and none needed": {nil, 0, nil, time.Time{}, false},
		"one": {
			[]Signer{{Entry: "a", Key: "1"}}, 1, []Signer{{Entry: "a", Key: "1"}}, time.Time{}, true,
		},
		"too few": {[]Signer{{Entry: "a", Key: "1"}}, 2, []Signer{{Entry: "a", Key: "1"}}, time.Time{}, false},
		"no more than needed": {[]Signer{{Entry: "b", Key: "2"}, {Entry: "a", Key: "1"}}, 1,
			[]Signer{{Entry: "a", Key: "1"}}, time.Time{}, true},
		"the longest": {[]Signer{{"a", "1", soon}, {"b", "2", later}, {"c", "3", time.Time{}}}, 2,
			[]Signer{{"c", "3", time.Time{}}, {"b", "2", later}}, later, true},
		"the latest of an entry": {[]Signer{{"a", "1", soon}, {"a", "1", later}, {"a", "2", soon}}, 1,
			[]Signer{{"a", "1", later}}, later, true},
		"one that has ended": {
			[]Signer{{"a", "1", past}, {"b", "2", soon}}, 2, []Signer{{"b", "2", soon}}, soon, false,
		},
		"one that ends now":   {[]Signer{{"a", "1", now}}, 1, []Signer{{"a", "1", now}}, now, true},
		"all that have ended": {[]Signer{{"a", "1", past}}, 1, nil, time.Time{}, false},
		// The first of these has to use the key 2, although it comes first and has the key 1 too.
		"a choice": {[]Signer{{Entry: "a", Key: "1"}, {Entry: "a", Key: "2"}, {Entry: "b", Key: "1"}}, 2,
			[]Signer{{Entry: "a", Key: "2"}, {Entry: "b", Key: "1"}}, time.Time{}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, until, ok := Quorum(c.signers, c.threshold, now)
			if d := cmp.Diff(c.want, got); d != "" || !until.Equal(c.until) || ok != c.ok {
				t.Errorf("got until %v, %t, want %v, %t; -want +got:\n%s", until, ok, c.until, c.ok, d)
			}
		})
	}
}

// One workflow under a pattern, one certificate renewed, and one key in several certificates count
// once.
func TestThreatOneSignerCountedTwice(t *testing.T) {
	for name, signers := range map[string][]Signer{
		"a workflow under a pattern signs twice": {
			{Entry: "identities[0]", Key: "1"}, {Entry: "identities[0]", Key: "2"},
		},
		"a certificate is renewed for its key": {
			{Entry: "identities[0]", Key: "1"}, {Entry: "identities[1]", Key: "1"},
		},
		"a listed key has a certificate too": {{Entry: "key 1", Key: "1"}, {Entry: "identities[0]", Key: "1"}},
		"a signature is there twice":         {{Entry: "key 1", Key: "1"}, {Entry: "key 1", Key: "1"}},
		"the same until another time": {{Entry: "key 1", Key: "1", Until: now},
			{Entry: "key 1", Key: "1", Until: now.Add(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, ok := Quorum(signers, 2, now)
			if ok || len(got) != 1 {
				t.Errorf("got %d signers, %t, want one", len(got), ok)
			}
		})
	}
}

// The result is a largest one, whatever the order: compared with trying all subsets.
func TestQuorumIsTheLargest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		signers := make([]Signer, r.IntN(8))
		for i := range signers {
			signers[i] = Signer{Entry: string(rune('a' + r.IntN(4))), Key: string(rune('1' + r.IntN(4)))}
		}
		want := 0
		for set := range 1 << len(signers) {
			entries, keys, n := map[string]bool{}, map[string]bool{}, 0
			for i, s := range signers {
				if set&(1<<i) != 0 {
					entries[s.Entry], keys[s.Key] = true, true
					n++
				}
			}
			if len(entries) == n && len(keys) == n {
				want = max(want, n)
			}
		}
		got, _, _ := Quorum(signers, 100, now)
		if len(got) != want {
			t.Fatalf("%v: got %d signers, want %d", signers, len(got), want)
		}
		for i, a := range got {
			if !slices.Contains(signers, a) {
				t.Fatalf("%v: got %v, which is none of them", signers, a)
			}
			for _, b := range got[:i] {
				if a.Entry == b.Entry || a.Key == b.Key {
					t.Fatalf("%v: got %v and %v", signers, a, b)
				}
			}
		}
	}
}
