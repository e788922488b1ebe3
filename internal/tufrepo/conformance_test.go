package tufrepo_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"crypto"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// The cases of this file are those that the conformance suite for TUF clients tries;
// TestConformanceSuite has the list.

// signers is a version of a role: its keys, its threshold, and the keys that sign it.
type signers struct {
	keys      []int
	threshold int
	sign      []int
}

func TestRootKeysAndThresholds(t *testing.T) {
	for name, tt := range map[string]struct {
		versions []signers
		refused  bool // the last version
	}{
		"rotated": {
			versions: []signers{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 1}}, {[]int{2}, 1, []int{2}}},
		},
		"rotated, other signatures": {
			versions: []signers{
				{[]int{1}, 1, []int{3, 1, 4}}, {[]int{2}, 1, []int{3, 2, 1, 4}}, {[]int{2}, 1, []int{3, 2, 4}},
			},
		},
		"3 of 5, other ones": {
			versions: []signers{{five, 3, []int{0, 2, 4}}, {five, 3, []int{0, 4, 1}}, {five, 3, []int{0, 1, 3}}},
		},
		"3 of 5, one rotated": {
			versions: []signers{{five, 3, []int{0, 2, 4}}, {[]int{0, 1, 3, 4, 5}, 3, []int{0, 4, 1}}},
		},
		"3 of 5, all rotated": {
			versions: []signers{
				{five, 3, []int{0, 2, 4}}, {[]int{5, 6, 7, 8, 9}, 3, []int{0, 2, 4, 5, 6, 7}},
				{[]int{5, 6, 7, 8, 9}, 3, []int{5, 6, 7}},
			},
		},
		"3 of 5, one rotated in two steps": {
			versions: []signers{
				{five, 3, []int{0, 2, 4}}, {[]int{0, 1, 3, 4, 5}, 3, []int{0, 2, 4, 5}},
				{[]int{0, 1, 3, 4, 5}, 3, []int{0, 4, 5}},
			},
		},
		"threshold raised with a new key": {
			versions: []signers{{[]int{1}, 1, []int{1}}, {[]int{1, 2}, 2, []int{1, 2}}},
		},
		"threshold raised": {
			versions: []signers{{[]int{1, 2, 3}, 1, []int{1}}, {[]int{1, 2, 3}, 2, []int{1, 2}}},
		},
		"threshold lowered": {
			versions: []signers{
				{[]int{1, 2, 3}, 2, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1}},
			},
		},
		"without the old key": {
			versions: []signers{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{2, 3, 4}}}, refused: true,
		},
		"without the new key": {
			versions: []signers{{[]int{1}, 1, []int{1}}, {[]int{2}, 1, []int{1, 3, 4}}}, refused: true,
		},
		"3 of 5, too few new ones": {
			versions: []signers{{five, 3, []int{0, 2, 4}}, {[]int{0, 1, 3, 4, 5}, 3, []int{0, 2, 4}}}, refused: true,
		},
		"3 of 5, too few old ones": {
			versions: []signers{{five, 3, []int{0, 2, 4}}, {[]int{0, 1, 3, 4, 5}, 3, []int{0, 4, 5}}}, refused: true,
		},
		"threshold raised, not reached": {
			versions: []signers{{[]int{1, 2, 3}, 1, []int{1}}, {[]int{1, 2, 3}, 2, []int{2}}}, refused: true,
		},
		"threshold lowered too soon": {
			versions: []signers{{[]int{1, 2, 3}, 2, []int{1, 2}}, {[]int{1, 2, 3}, 1, []int{1}}}, refused: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			keys := make([]*key, 10)
			for i := range keys {
				keys[i] = newKey(t)
			}
			for i, v := range tt.versions {
				r.setKeys(metadata.ROOT, keys, v)
				r.root.Signed.Version = int64(i + 1)
				r.write(metadata.ROOT)
			}
			s, err := r.client().Refresh(t.Context(), nil)
			if tt.refused {
				if err == nil {
					t.Errorf("got root %d, want it refused", s.Versions().Root)
				}
				return
			}
			if err != nil || s.Versions().Root != int64(len(tt.versions)) {
				t.Errorf("got %v, want root %d", err, len(tt.versions))
			}
		})
	}
}

var five = []int{0, 1, 2, 3, 4}

// setKeys replaces keys, threshold and signers of a top-level role.
func (r *repository) setKeys(role string, keys []*key, v signers) {
	r.t.Helper()
	r.root.Signed.Roles[role] = &metadata.Role{KeyIDs: []string{}, Threshold: v.threshold}
	r.keys[role] = nil
	for _, i := range v.keys {
		r.addKey(role, keys[i])
	}
	r.keys[role] = nil
	for _, i := range v.sign {
		r.keys[role] = append(r.keys[role], keys[i])
	}
}

func TestKeysAndThresholdsOfOtherRoles(t *testing.T) {
	for _, role := range []string{metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		for name, tt := range map[string]struct {
			signers
			refused bool
		}{
			"rotated":                   {signers{[]int{2}, 1, []int{2}}, false},
			"other signatures":          {signers{[]int{1}, 1, []int{3, 1, 4}}, false},
			"without the new key":       {signers{[]int{2}, 1, []int{1, 3, 4}}, true},
			"3 of 5, one by another":    {signers{[]int{0, 1, 3, 4, 5}, 3, []int{0, 2, 4}}, true},
			"3 of 5, one too few":       {signers{[]int{0, 1, 3, 4, 5}, 3, []int{0, 4}}, true},
			"3 of 5, the first":         {signers{five, 3, []int{0, 2, 4}}, false},
			"3 of 5, in another order":  {signers{five, 3, []int{4, 1, 0}}, false},
			"3 of 5":                    {signers{five, 3, []int{2, 3, 4}}, false},
			"fewer keys than threshold": {signers{five, 6, five}, true},
		} {
			t.Run(role+" "+name, func(t *testing.T) {
				r := newRepository(t)
				keys := make([]*key, 6)
				for i := range keys {
					keys[i] = newKey(t)
				}
				c := r.client()
				held := refreshed(t, c, nil)
				r.setKeys(role, keys, tt.signers)
				r.publish(metadata.ROOT, metadata.TARGETS)
				_, err := c.Refresh(t.Context(), held)
				if tt.refused {
					wantFault(t, err, v1alpha1.ReasonMetadataInvalid, role+".json")
				} else if err != nil {
					t.Errorf("got %v, want it accepted", err)
				}
			})
		}
	}
}

func TestKeyTypes(t *testing.T) {
	rsaKey := func(bits int) func(*testing.T) *key {
		return func(t *testing.T) *key {
			private, err := rsa.GenerateKey(rand.Reader, bits)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := signature.LoadRSAPSSSigner(private, crypto.SHA256, &rsa.PSSOptions{Hash: crypto.SHA256})
			if err != nil {
				t.Fatal(err)
			}
			return withSigner(t, signer)
		}
	}
	for name, tt := range map[string]struct {
		make    func(t *testing.T) *key
		refused bool
	}{
		"ed25519": {make: func(t *testing.T) *key { return newKey(t) }},
		"ecdsa":   {make: func(t *testing.T) *key { return newECDSAKey(t) }},
		"ecdsa by its old name": {make: func(t *testing.T) *key {
			k := newECDSAKey(t)
			k.public = written(k, "ecdsa-sha2-nistp256")
			k.id = "x"
			return k
		}},
		"rsa":      {make: rsaKey(2048)},
		"rsa 1024": {make: rsaKey(1024), refused: true},
		"P-384": {make: func(t *testing.T) *key {
			private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := signature.LoadSigner(private, crypto.SHA384)
			if err != nil {
				t.Fatal(err)
			}
			k := withSigner(t, signer)
			k.public.Scheme, k.id = "ecdsa-sha2-nistp384", "x"
			return k
		}},
		"P-384 under the scheme of P-256": {refused: true, make: func(t *testing.T) *key {
			private, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return keyOf(t, private)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GODEBUG", "rsa1024min=0")
			r := newRepository(t)
			r.hashes = true
			k := tt.make(t)
			d := r.delegate(metadata.TARGETS, "ci", "*")
			d.KeyIDs = []string{k.id}
			r.delegations(metadata.TARGETS).Keys[k.id] = k.public
			r.keys["ci"] = []*key{k}
			r.sign("ci", "app", []byte("x"))
			r.publish(metadata.TARGETS, "ci")
			s := loaded(t, r.client(), nil, "app")
			if tt.refused {
				wantRoles(t, s, "app")
				return
			}
			wantRoles(t, s, "app", "ci")

			raw := string(r.served("/1.ci.json"))
			r.hashes = false
			r.put("/2.ci.json", []byte(strings.Replace(raw, `"version":1`, `"version":2`, 1)))
			r.targets["ci"].Signed.Version = 2
			r.snapshot.Signed.Meta["ci.json"] = metadata.MetaFile(2)
			r.publish()
			c := r.client()
			s, err := c.Load(t.Context(), refreshed(t, c, nil), "app")
			wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "by 0 of")
			wantRoles(t, s, "app")
		})
	}
}

// Fields that the specification does not know are part of what is signed.
func TestFurtherFields(t *testing.T) {
	r := newRepository(t)
	for _, role := range topLevel {
		r.mutate[role] = func(signed map[string]any) {
			signed["x-custom"] = map[string]any{"a": 1, "b": []any{"\n", "\"", nil, true}}
		}
	}
	r.publish(metadata.ROOT, metadata.TARGETS)
	c := r.client()
	refreshed(t, c, nil)
	raw := string(r.served("/timestamp.json"))
	r.put("/timestamp.json", []byte(strings.Replace(raw, `"a":1`, `"a":2`, 1)))
	_, err := c.Refresh(t.Context(), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "by 0 of")
}

// A wrong signature beside enough right ones, or an empty one, spoils nothing.
func TestWrongSignatureBesideARightOne(t *testing.T) {
	for _, sig := range []string{"00", "", "not hexadecimal"} {
		r := newRepository(t)
		r.addKey(metadata.TIMESTAMP, newKey(t))
		r.publish(metadata.ROOT)
		var doc map[string]any
		if err := json.Unmarshal(r.served("/timestamp.json"), &doc); err != nil {
			t.Fatal(err)
		}
		doc["signatures"].([]any)[0].(map[string]any)["sig"] = sig
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		r.put("/timestamp.json", raw)
		if _, err := r.client().Refresh(t.Context(), nil); err != nil {
			t.Errorf("signature %q: got %v, want the other one to be enough", sig, err)
		}
	}
}

func TestSearch(t *testing.T) {
	type delegation struct {
		from, name  string
		paths       []string
		terminating bool
	}
	all := []string{"*"}
	for name, tt := range map[string]struct {
		delegations []delegation
		want        string // the roles in order
	}{
		"one": {[]delegation{{"targets", "A", all, false}}, "A"},
		"two": {[]delegation{{"targets", "A", all, false}, {"targets", "B", all, false}}, "A B"},
		"two levels": {
			[]delegation{{"targets", "A", all, false}, {"targets", "B", all, false}, {"B", "C", all, false}}, "A B C",
		},
		"in depth first": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"A", "C", all, false},
				{"A", "D", all, false},
			}, "A C D B",
		},
		"three levels": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"A", "C", all, false},
				{"C", "D", all, false},
			}, "A C D B",
		},
		"terminating": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"A", "C", all, true},
				{"A", "D", all, false},
			}, "A C",
		},
		"terminating, a child": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"A", "C", all, true},
				{"C", "D", all, false},
			}, "A C D",
		},
		"other paths": {
			[]delegation{
				{"targets", "A", []string{"*.py"}, false}, {"targets", "B", all, false}, {"A", "C", all, false},
			}, "B",
		},
		"other paths below": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"A", "C", []string{"*.py"}, false},
				{"C", "D", all, false},
			}, "A B",
		},
		"a circle": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"B", "C", all, false},
				{"C", "D", all, false}, {"D", "B", all, false},
			}, "A B C D",
		},
		"a third by both": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"B", "C", all, false},
				{"A", "C", all, false},
			}, "A C B C",
		},
		"a third by other paths": {
			[]delegation{
				{"targets", "A", all, false}, {"targets", "B", all, false}, {"B", "C", all, false},
				{"A", "C", []string{"*.py"}, false},
			}, "A B C",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepository(t)
			names := map[string]bool{metadata.TARGETS: true}
			for _, d := range tt.delegations {
				r.delegate(d.from, d.name, d.paths...).Terminating = d.terminating
				r.sign(d.name, "path", []byte("x"))
				names[d.name] = true
			}
			var changed []string
			for name := range names {
				changed = append(changed, name)
			}
			r.publish(changed...)
			var got []string
			for _, signed := range loaded(t, r.client(), nil, "path").Signed("path", today).Signed {
				got = append(got, signed.Role)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The library that made the repository accepts it too, so that these tests try what clients meet.
func TestLibraryAcceptsTheRepository(t *testing.T) {
	r, _ := signedRepository(t)
	trusted, err := trustedmetadata.New(r.served("/1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	trusted.RefTime = today
	if _, err = trusted.UpdateRoot(r.served("/2.root.json")); err != nil {
		t.Fatal(err)
	}
	if _, err = trusted.UpdateTimestamp(r.served("/timestamp.json")); err != nil {
		t.Fatal(err)
	}
	if _, err = trusted.UpdateSnapshot(r.served("/2.snapshot.json"), false); err != nil {
		t.Fatal(err)
	}
	if _, err = trusted.UpdateTargets(r.served("/2.targets.json")); err != nil {
		t.Fatal(err)
	}
	for role, from := range map[string]string{"ci": "targets", "qa": "targets"} {
		if _, err = trusted.UpdateDelegatedTargets(r.served(fmt.Sprintf("/1.%s.json", role)), role, from); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}
