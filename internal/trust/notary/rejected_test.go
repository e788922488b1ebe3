package notary

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// rejected returns the rejections for some roles, as denials show them.
func rejected(t *testing.T, ev trust.Evidence, roles, tag, digest string) []string {
	t.Helper()
	var all []string
	for _, r := range ev.Rejected(strings.Fields(roles), tag, digest) {
		if file := strings.HasSuffix(r.By, ".json"); r.Void != file {
			t.Errorf("%s %s: got void %t, want true for a file that does not count, and only for that", r.By, r.Why,
				r.Void)
		}
		text := r.By + " " + r.Why
		if r.Digest != "" {
			text = fmt.Sprintf("%s signed %s, %s", r.By, contentOf(r.Digest), r.Why)
		}
		all = append(all, text)
	}
	return all
}

// contentOf returns the content with a digest, of the contents that the tests use.
func contentOf(digest string) string {
	for _, content := range []string{"one", "two", "three"} {
		if digestOf(content) == digest {
			return content
		}
	}
	return digest
}

var sortedTexts = cmpopts.SortSlices(strings.Compare)

const (
	targetsProvesNothing = "which proves no role: sign with a delegation of the role ('docker trust signer add'; " +
		"administrators: or name targets in spec.notary.roles[].delegations of the TrustRoot)"
	releasesProvesNothing = "which proves no role, since any one of all signers signs it: the signer's own " +
		"delegation must have signed ('docker trust signer add')"
)

func TestRejected(t *testing.T) {
	team := func(threshold int, delegations ...string) func(*virtual, *Config) {
		return func(_ *virtual, c *Config) {
			c.Roles = []Role{{Name: "team", Delegations: delegations, Threshold: threshold}}
		}
	}
	tests := map[string]struct {
		change func(v *virtual)
		config func(v *virtual, c *Config)
		roles  string
		want   []string // %s is the ID of qa's key
	}{
		"the role has not signed": {func(v *virtual) { v.roles["targets/qa"].targets = m{} }, nil, "qa", nil},
		"signed in targets alone": {
			func(v *virtual) {
				v.roles["targets"].targets = m{"v1": entry("two")}
				delete(v.roles["targets/ci"].targets, "v1")
				delete(v.roles["targets/qa"].targets, "v1")
			}, nil, "ci qa", []string{"targets signed two, " + targetsProvesNothing},
		},
		"signed in targets alone, without delegations": {
			func(v *virtual) {
				v.roles["targets"].targets = m{"v1": entry("two")}
				delete(v.roles, "targets/ci")
				delete(v.roles, "targets/qa")
			}, nil, "ci qa", []string{
				"targets signed two, " + targetsProvesNothing,
				"delegations targets/ci, targets/qa are not in this repository, which has none",
			},
		},
		"signed in targets too": {
			func(v *virtual) {
				v.roles["targets"].targets = m{"v1": entry("one")}
				delete(v.roles["targets/qa"].targets, "v1")
			}, nil, "qa", nil,
		},
		"another digest in targets": {
			func(v *virtual) {
				v.roles["targets"].targets = m{"v1": entry("two")}
				delete(v.roles["targets/qa"].targets, "v1")
			}, nil, "qa", []string{"targets signed two, " + targetsProvesNothing},
		},
		"targets is mapped": {
			func(v *virtual) { v.roles["targets"].targets = m{"v1": entry("two")} }, team(1, "targets"), "ci", nil,
		},
		"signed in releases alone": {
			func(v *virtual) {
				v.delegate("targets/releases", entry("two"))
				delete(v.roles["targets/qa"].targets, "v1")
			}, nil, "qa", []string{"targets/releases signed two, " + releasesProvesNothing},
		},
		"a role of the name of releases": {
			func(v *virtual) { v.delegate("targets/releases", entry("one")) }, nil, "releases",
			[]string{
				`role "releases" cannot be proven: targets/releases is signed by any one of all signers and proves no role; name the signer's own delegation`,
			},
		},
		"the role of its name is mapped to others": {
			func(v *virtual) { v.roles["targets/qa"].targets["v1"] = entry("two") },
			func(_ *virtual, c *Config) {
				c.Roles = []Role{{Name: "qa", Delegations: []string{"targets/ci"}, Threshold: 2}}
			}, "qa", []string{
				"targets/qa signed two, which proves no role: the role of its name is mapped to other delegations " +
					"(administrators: spec.notary.roles of the TrustRoot)",
				`targets/ci signed one, which is 1 of the 2 keys that role "qa" needs`,
			},
		},
		"one of two keys": {
			func(v *virtual) { delete(v.roles["targets/qa"].targets, "v1") }, team(2, "targets/ci", "targets/qa"),
			"team",
			[]string{`targets/ci signed one, which is 1 of the 2 keys that role "team" needs`},
		},
		"one of two keys, of another role": {
			func(v *virtual) { delete(v.roles["targets/qa"].targets, "v1") }, team(2, "targets/ci", "targets/qa"),
			"ci", nil,
		},
		"two of three keys": {
			func(v *virtual) { v.delegate("targets/x", entry("two")) },
			team(3, "targets/ci", "targets/qa", "targets/x"), "team",
			[]string{
				`targets/x signed two, which is 1 of the 3 keys that role "team" needs`,
				`targets/ci, targets/qa signed one, which is 2 of the 3 keys that role "team" needs`,
			},
		},
		"a key that is not listed": {
			func(*virtual) {}, func(_ *virtual, c *Config) {
				c.Roles = []Role{{Name: "qa", Threshold: 1, Keys: []PEM{{"f", string(newKey(t, "ecdsa", "").bare)}}}}
			}, "qa",
			[]string{
				`targets/qa signed one, by a key that is not pinned for role "qa" (administrators: spec.notary.roles[].keys of the TrustRoot)`,
			},
		},
		"the only key is revoked": {
			func(*virtual) {},
			func(v *virtual, c *Config) { c.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical} }, "qa",
			[]string{
				"targets/qa.json is signed by key %s, which is revoked (administrators: spec.revokedKeys of the " +
					"TrustRoot)",
			},
		},
		"the key of the delegation above is revoked": {
			func(v *virtual) { v.delegate("targets/qa/eu", entry("one")) },
			func(v *virtual, c *Config) { c.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical} }, "qa/eu",
			[]string{
				"targets/qa.json is signed by key %s, which is revoked (administrators: spec.revokedKeys of the " +
					"TrustRoot)",
			},
		},
		"one of two keys is revoked": {
			func(v *virtual) {
				v.roles["targets/qa"].keys = append(v.roles["targets/qa"].keys, newKey(t, "ecdsa", ""))
			}, func(v *virtual, c *Config) { c.RevokedKeys = []string{v.roles["targets/qa"].keys[0].canonical} },
			"qa", nil,
		},
		"below the threshold of the delegation": {
			func(v *virtual) {
				qa := v.roles["targets/qa"]
				qa.signers, qa.keys, qa.threshold = qa.keys, append(qa.keys, newKey(t, "ecdsa", "")), 2
			}, nil, "qa", []string{"targets/qa.json is signed by 1 of the keys that may sign it, and 2 must have"},
		},
		"expired": {
			func(v *virtual) { v.roles["targets/qa"].expires = testNow() }, nil, "qa",
			[]string{"targets/qa.json expired at 2026-03-01T12:00:00Z; it must be signed anew"},
		},
		"unusable": {
			func(v *virtual) { v.roles["targets/qa"].mutate = func(signed m) { signed["targets"] = "none" } },
			nil, "qa",
			[]string{`targets/qa.json is unusable: "targets" is missing or not of its type`},
		},
		"unreadable": {
			func(v *virtual) { v.roles["targets/qa"].rewrite = func([]byte) []byte { return []byte("[]") } }, nil, "qa",
			[]string{"targets/qa.json is unusable: not a JSON object"},
		},
		"outside of its paths": {
			func(v *virtual) { v.roles["targets/qa"].paths = []string{"rc-"} }, nil, "qa",
			[]string{
				"targets/qa signed one, outside of the paths of that delegation ('notary delegation add --all-paths')",
			},
		},
		"outside of the paths of one of a team": {
			func(v *virtual) { v.roles["targets/qa"].paths = nil }, team(2, "targets/ci", "targets/qa"), "team",
			[]string{
				`targets/ci signed one, which is 1 of the 2 keys that role "team" needs`,
				"targets/qa signed one, outside of the paths of that delegation ('notary delegation add --all-paths')",
			},
		},
		"a role that the repository does not have": {
			func(*virtual) {}, nil, "security",
			[]string{"delegation targets/security is not in this repository, which has targets/ci, targets/qa"},
		},
		"a role that is mapped to what the repository does not have": {
			func(*virtual) {}, team(1, "targets/alice", "targets/bob"), "team",
			[]string{
				"delegations targets/alice, targets/bob are not in this repository, which has targets/ci, targets/qa",
			},
		},
		"a role of which the repository has a part": {
			func(v *virtual) { v.roles["targets/ci"].targets = m{} }, team(1, "targets/alice", "targets/ci"),
			"team", nil,
		},
		"a delegation that never signed": {
			func(v *virtual) { v.roles["targets/qa"].targets = m{}; v.unlist["targets/qa"] = true }, nil, "qa", nil,
		},
		"many roles and many delegations": {
			func(v *virtual) {
				for i := range 12 {
					v.delegate(fmt.Sprintf("targets/d%02d", i), nil)
				}
			}, nil, "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9",
			[]string{"delegations targets/r0, targets/r1, targets/r2, targets/r3, targets/r4, targets/r5, " +
				"targets/r6, targets/r7 and 2 more" +
				" are not in this repository, which has targets/ci, targets/d00, targets/d01, targets/d02, " +
				"targets/d03, targets/d04, targets/d05, targets/d06 and 6 more"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(t)
			v.bump("targets", "targets/ci", "targets/qa")
			qa := v.roles["targets/qa"].keys[0].canonical
			tt.change(v)
			v.publish()
			cfg := v.config()
			if tt.config != nil {
				tt.config(v, &cfg)
			}
			ev := mustFetch(t, v.root(cfg), nil)
			var want []string
			for _, w := range tt.want {
				want = append(want, strings.ReplaceAll(w, "%s", qa))
			}
			got := rejected(t, ev, tt.roles, "v1", "")
			if diff := cmp.Diff(want, got, sortedTexts); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
			again, err := v.root(cfg).Recheck(of(testGUN), ev)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, rejected(t, again, tt.roles, "v1", "")); diff != "" {
				t.Errorf("rejected after another verification (-before +after):\n%s", diff)
			}
		})
	}
}

// Rejections of a digest include it under any tag, once, and no other digest.
func TestRejectedByDigest(t *testing.T) {
	v := newVirtual(t)
	v.bump("targets")
	v.roles["targets"].targets = m{"v1": entry("two"), "v2": entry("two"), "v3": entry("three")}
	v.publish()
	ev := mustFetch(t, v.root(v.config()), nil)
	for digest, want := range map[string][]string{
		digestOf("two"):   {"targets signed two, " + targetsProvesNothing},
		digestOf("three"): {"targets signed three, " + targetsProvesNothing},
		digestOf("one"):   nil, "sha256:2": nil, "": nil,
	} {
		if diff := cmp.Diff(want, rejected(t, ev, "qa", "", digest)); diff != "" {
			t.Errorf("rejections of %q (-want +got):\n%s", digest, diff)
		}
	}
	if got := rejected(t, ev, "qa", "v9", digestOf("two")); got != nil {
		t.Errorf("got rejections %q for a tag without signatures, want none", got)
	}
}

// Rejected targets are never statements, and the rejections of an image are few, however many
// targets prove no role.
func TestThreatWhatProvesNoRoleIsNoStatement(t *testing.T) {
	v := newVirtual(t)
	v.bump("targets", "targets/ci", "targets/qa")
	v.roles["targets"].targets = m{"v1": entry("two"), "ci": entry("two"), "qa": entry("two")}
	v.roles["targets/qa"].paths = nil
	var team []string
	for i := range 20 {
		name := fmt.Sprintf("targets/d%02d", i)
		v.delegate(name, entry(fmt.Sprint("content ", i)))
		team = append(team, name)
	}
	v.publish()
	cfg := v.config()
	cfg.Roles = []Role{{Name: "team", Delegations: team, Threshold: 2}}
	for i := range 20 {
		cfg.Roles = append(cfg.Roles, Role{
			Name: fmt.Sprintf("d%02d", i), Delegations: []string{"targets/none"}, Threshold: 1,
		})
	}
	ev := mustFetch(t, v.root(cfg), nil)
	wantRoles(t, signedBy(ev, "v1"), "ci one")
	for _, content := range []string{"two", "content 0", "content 19"} {
		if got := ev.Statements("", digestOf(content)); len(got) > 0 {
			t.Errorf("%s: got statements %v, want none", content, got)
		}
	}
	if got := rejected(t, ev, "team qa ci", "v1", ""); len(got) != maxRejections {
		t.Errorf("got %d rejections, want %d: %q", len(got), maxRejections, got)
	}
}

// A signature of the real client in targets, in targets/releases, or with one key of two proves no
// role.
func TestRealRejections(t *testing.T) {
	r := newReal(t, notaryserver.Options{})
	ctx := t.Context()
	pin := r.pin()
	team := func(c *Config) {
		pinID(pin.KeyID)(c)
		c.Roles = []Role{{Name: "team", Delegations: []string{"targets/ci", "targets/qa"}, Threshold: 2}}
	}
	reader := r.reader(team)
	r.sign("one", "targets")
	ev := mustFetch(t, reader, nil)
	want := func(roles string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, rejected(t, ev, roles, "v1", "")); diff != "" {
			t.Errorf("rejections of %s (-want +got):\n%s", roles, diff)
		}
	}
	wantSigned(t, ev, "v1")
	want("ci qa", "targets signed one, "+targetsProvesNothing)
	want("security", "targets signed one, "+targetsProvesNothing,
		"delegation targets/security is not in this repository, which has targets/ci, targets/qa")

	r.do(r.Remove(ctx, r.gun, "v1", "targets"))
	r.sign("one", "targets/ci")
	ev = mustFetch(t, reader, ev)
	want("team", `targets/ci signed one, which is 1 of the 2 keys that role "team" needs`)

	r.do(r.AddDelegation(ctx, r.gun, "targets/releases", []*notaryserver.SigningKey{r.keys["ci"]}))
	r.sign("two", "targets/releases")
	ev = mustFetch(t, reader, ev)
	want("qa", "targets/releases signed two, "+releasesProvesNothing)

	revoked := r.reader(func(c *Config) {
		pinID(pin.KeyID)(c)
		c.RevokedKeys = []string{r.keys["ci"].KeyID}
	})
	ev = mustFetch(t, revoked, nil)
	want("ci",
		"targets/ci.json is signed by key "+r.keys["ci"].KeyID+
			", which is revoked (administrators: spec.revokedKeys of the TrustRoot)")
}

// The rejected targets of a repository are bounded, and so are the rejections of one image.
func TestThreatRejectionsAreBounded(t *testing.T) {
	m := newMetadata(rootVerifier{Root: &Root{}}, nil)
	files := signedTargets{name: targetsRole, targets: make([]target, maxRejectedTargets+10)}
	m.verified[targetsRole] = &files
	for range files.targets {
		m.reject(target{tag: "v1"}, &cause{})
	}
	if n := len(m.rejected); n != maxRejectedTargets {
		t.Errorf("got %d rejected targets, want %d", n, maxRejectedTargets)
	}
	var e evidence
	for i := range byte(2 * maxRejections) {
		e.rejected = append(e.rejected, rejectedTarget{
			tag: "v1", digest: [32]byte{i}, cause: &cause{by: targetsRole, why: "x"},
		})
	}
	if n := len(e.Rejected([]string{"ci"}, "v1", "")); n != maxRejections {
		t.Errorf("got %d rejections, want %d", n, maxRejections)
	}
}

// Rejected targets are found by binary search. It visits exactly the targets that a full scan would
// return, each once. So a made-up digest costs the same in a small and in a large repository.
func TestThreatRejectionsAreFoundWithoutAScan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		m := newMetadata(rootVerifier{Root: &Root{}}, nil)
		causes := []*cause{
			{by: "targets", why: "x"}, {by: "targets/a", why: "x"}, {role: "ci", by: "targets/b", why: "x"},
			{role: "qa", by: "targets/a", why: "x"}, {role: "qa", by: "targets/a", why: "y"},
		}
		tags, digests := []string{"v1", "v2", "v3", "v4"}, 1+random.IntN(6)
		for range random.IntN(60) {
			m.rejected = append(m.rejected, rejectedTarget{
				tag: tags[random.IntN(3)], digest: [32]byte{byte(random.IntN(digests))},
				cause: causes[random.IntN(len(causes))],
			})
		}
		all := slices.Clone(m.rejected)
		var e evidence
		e.setRejected(m.rejectedTargets(nil), nil, nil)
		told := func(l rejectedTarget) trust.Rejection {
			return trust.Rejection{By: l.cause.role + " " + l.cause.by, Digest: digestText(l.digest), Why: l.cause.why}
		}
		check := func(roles []string, tag, digest string) {
			t.Helper()
			want := map[trust.Rejection]bool{}
			for _, l := range all {
				about := l.tag == tag || tag == "" && digestText(l.digest) == digest
				if about && (l.cause.role == "" || slices.Contains(roles, l.cause.role)) {
					want[told(l)] = true
				}
			}
			var got []trust.Rejection
			for l := range e.rejectedFor(roles, tag, digest) {
				got = append(got, told(l))
			}
			if len(got) != len(want) {
				t.Fatalf("got %d visited of %q, tag %q, digest %q; want %d:\n%v", len(got), roles, tag, digest,
					len(want), got)
			}
			for _, r := range got {
				if !want[r] {
					t.Fatalf("got a visit of %v", r)
				}
			}
		}
		for _, roles := range [][]string{nil, {"qa"}, {"ci", "qa"}, {"none"}} {
			for _, tag := range tags {
				check(roles, tag, "")
				check(roles, tag, digestText([32]byte{1}))
			}
			for i := range digests + 2 {
				check(roles, "", digestText([32]byte{byte(i)}))
			}
			check(roles, "", "sha256:none")
		}
	}
}

// A digest under very many tags has one index. Indexes count for the size of the evidence.
func TestRejectionsOfManyTags(t *testing.T) {
	const tags = 1000
	kept := func(digests int) *evidence {
		all, why := make([]rejectedTarget, tags), &cause{by: targetsRole, why: "x"}
		for i := range all {
			all[i] = rejectedTarget{
				tag: fmt.Sprintf("v%04d", i), digest: [32]byte{byte(i % digests), byte(i % digests >> 8)}, cause: why,
			}
		}
		e := &evidence{}
		e.setRejected(all, nil, nil)
		return e
	}
	one, many := kept(1), kept(tags)
	if n, room := len(one.rejectedByDigest), cap(one.rejectedByDigest); n != 1 || room > 8 {
		t.Errorf("got %d indexes in a capacity of %d", n, room)
	}
	if n := len(many.rejectedByDigest); n != tags {
		t.Errorf("got %d indexes, want %d", n, tags)
	}
	if got, want := many.size-one.size, int64(4*(cap(many.rejectedByDigest)-cap(one.rejectedByDigest))); got != want {
		t.Errorf("got %d bytes for the indexes, want %d", got, want)
	}
}
