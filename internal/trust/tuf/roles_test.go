package tuf_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Three delegations sign one target: by a path, by a prefix of the path's hash, and below hash
// bins. Removing the signature of one takes away exactly its role: by tag, and by digest alone.
func TestEachOfThreeDelegations(t *testing.T) {
	for name, consistent := range map[string]bool{"consistent snapshots": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			b := newBedIn(t, folder, consistent)
			digest := digestOf("v1")
			b.delegate(targets, "ci", "registry.example.com/acme/*")
			b.delegate(targets, "qa").PathHashPrefixes = allPrefixes()
			b.delegate(targets, "security", "*/*/*")
			bins, err := b.Split("security", "bin", 4)
			b.must(err)
			bin := b.Bin("security", app+":v1")
			b.sign(app, "v1", digest, "ci", "qa", bin)
			b.publish(append([]string{targets, "ci", "qa", "security"}, bins...)...)
			r := b.root()
			byTag, byDigest := b.fetch(r, app+":v1", nil), b.fetch(r, app+"@"+digest, nil)
			all := []string{"ci", "qa", "security"}
			wantRoles(t, byTag, "v1", digest, all...)
			wantRoles(t, byDigest, "", digest, all...)
			for i, file := range []string{"ci", "qa", bin} {
				delete(b.Targets[file].Signed.Targets, app+":v1")
				b.publish(file)
				byTag, byDigest = b.fetch(r, app+":v1", byTag), b.fetch(r, app+"@"+digest, byDigest)
				want := slices.Delete(slices.Clone(all), i, i+1)
				wantRoles(t, byTag, "v1", digest, want...)
				wantRoles(t, byDigest, "", digest, want...)
				b.sign(app, "v1", digest, file)
				b.publish(file)
			}
			byTag = b.fetch(r, app+":v1", byTag)
			wantRoles(t, byTag, "v1", digest, all...)
		})
	}
}

func allPrefixes() []string {
	var all []string
	for i := range 16 {
		all = append(all, fmt.Sprintf("%x", i))
	}
	return all
}

// A role is every delegation that spec.tuf.roles lists. Its threshold counts distinct keys.
func TestRolesAndThresholds(t *testing.T) {
	b := newBed(t)
	digest, other := digestOf("v1"), digestOf("other")
	for _, name := range []string{"alice", "bob", "eve"} {
		b.delegate(targets, name, "*/*/*")
	}
	two, err := b.Delegate(targets, "release", 2, "*/*/*")
	b.must(err)
	two.Threshold = 2
	b.Keys["eve"] = b.Keys["alice"] // one key for two delegations
	d := b.Targets[targets].Signed.Delegations
	d.Roles[2].KeyIDs = d.Roles[0].KeyIDs
	b.sign(app, "both", digest, "alice", "bob", "release")
	b.sign(app, "alice", digest, "alice")
	b.sign(app, "twice", digest, "alice", "eve")
	b.sign(app, "differ", digest, "alice")
	b.sign(app, "differ", other, "bob")
	b.publish(targets, "alice", "bob", "eve", "release")
	team := v1alpha1.TUFRole{Name: "qa", Delegations: []v1alpha1.TUFDelegationName{"alice", "bob", "eve"}, Threshold: 2}
	one := v1alpha1.TUFRole{Name: "one", Delegations: []v1alpha1.TUFDelegationName{"alice", "bob"}}
	release := v1alpha1.TUFRole{Name: "both", Delegations: []v1alpha1.TUFDelegationName{"release"}, Threshold: 2}
	r := b.root(role(team), role(one), role(release))
	for tag, want := range map[string][]string{
		"both": {"alice", "bob", "both", "one", "qa", "release"}, "alice": {"alice", "one"},
		"twice": {"alice", "eve", "one"},
	} {
		wantRoles(t, b.fetch(r, app+":"+tag, nil), tag, digest, want...)
	}
	e := b.fetch(r, app+":differ", nil)
	wantRoles(t, e, "differ", digest, "alice", "one")
	wantRoles(t, e, "differ", other, "bob", "one")
	wantRejected(t, e, "qa", "differ", "alice", `which is 1 of the 2 keys that role "qa" needs`)

	b.Keys["release"] = b.Keys["release"][:1]
	b.publish("release")
	e = b.fetch(r, app+":both", nil)
	wantRoles(t, e, "both", digest, "alice", "bob", "one", "qa")
	// The snapshot lists no hashes, so the server may have answered with any file.
	if faults := e.Faults(); len(faults) != 1 || !strings.Contains(faults[0].Error(),
		"release.json: it has valid signatures by 1 of the role's keys, and needs 2") {
		t.Errorf("got faults %v, want one of release.json", faults)
	}
}

// With pinned keys only those count, whatever the metadata lists.
func TestThreatTUFRoleWithAnotherKey(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "qa")
	b.publish(targets, "qa")
	stranger, err := tufserver.NewKey()
	b.must(err)
	pinned := func(pem string) trust.Root {
		return b.root(role(v1alpha1.TUFRole{Name: "qa", Keys: []v1alpha1.PEM{v1alpha1.PEM(pem)}}))
	}
	wantRoles(t, b.fetch(pinned(b.Keys["qa"][0].PEM), app+":v1", nil), "v1", digestOf("v1"), "qa")
	e := b.fetch(pinned(stranger.PEM), app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"))
	wantRejected(t, e, "qa", "v1", "qa", `which is not pinned for role "qa"`, b.Keys["qa"][0].ID[:12])
}

// Whoever holds the keys of a delegation can delegate to any name, with keys of their own. Such a
// name proves no role by itself.
func TestThreatTUFDelegationTakesTheNameOfARole(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate("ci", "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.publish(targets, "ci", "qa")
	e := b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci")
	wantRejected(t, e, "qa", "v1", "qa", `as a delegation of "ci"`, "spec.tuf.roles")
	r := b.root(role(v1alpha1.TUFRole{Name: "qa", Delegations: []v1alpha1.TUFDelegationName{"qa"}}))
	wantRoles(t, b.fetch(r, app+":v1", nil), "v1", digestOf("v1"), "ci", "qa")
	// A role that is listed without delegations is the delegation of targets, too.
	r = b.root(role(v1alpha1.TUFRole{Name: "qa"}))
	wantRoles(t, b.fetch(r, app+":v1", nil), "v1", digestOf("v1"), "ci")
}

// The bins of targets speak for targets, so what they delegate to is a delegation of targets.
func TestDelegationOfABinOfTargets(t *testing.T) {
	b := newBed(t)
	bins, err := b.Split(targets, "bin", 2)
	b.must(err)
	bin := b.Bin(targets, app+":v1")
	b.delegate(bin, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), bin, "qa")
	b.publish(append([]string{targets, "qa"}, bins...)...)
	e := b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "qa")
	wantRejected(t, e, "ci", "v1", bin, "proves no role")
}

// targets itself proves no role, unless it is listed.
func TestThreatTUFTargetsProvesNoRole(t *testing.T) {
	b := newBed(t)
	b.sign(app, "v1", digestOf("v1"), targets)
	b.publish(targets)
	e := b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"))
	wantRejected(t, e, "qa", "v1", "targets", "proves no role")
	r := b.root(role(v1alpha1.TUFRole{Name: "qa", Delegations: []v1alpha1.TUFDelegationName{targets}}))
	wantRoles(t, b.fetch(r, app+":v1", nil), "v1", digestOf("v1"), "qa")
}

// A terminating delegation that covers the path hides those after it. The denial names it.
func TestTerminatingDelegationIsNamed(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "registry.example.com/acme/*").Terminating = true
	b.delegate(targets, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.sign("registry.example.com/other/app", "v1", digestOf("v1"), "qa")
	b.publish(targets, "ci", "qa")
	r := b.root()
	e := b.fetch(r, app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci")
	wantRejected(t, e, "qa", "v1", "qa.json",
		"targets delegates the path to ci with a terminating delegation before it")
	wantRoles(t, b.fetch(r, "registry.example.com/other/app:v1", nil), "v1", digestOf("v1"), "qa")
}

// Length and other hashes of a target are not compared: the sha256 hash binds the manifest. Without
// it, the target is of no image.
func TestHashesAndLengthsOfTargets(t *testing.T) {
	b := newBed(t)
	for _, name := range []string{"ci", "qa", "security"} {
		b.delegate(targets, name, "*/*/*")
	}
	b.must(b.Sign("ci", app+":v1", digestOf("v1"), 1))
	b.must(b.Sign("qa", app+":v1", digestOf("v1"), 1<<40))
	b.must(b.Sign("security", app+":v1", digestOf("v1"), 7))
	b.Targets["security"].Signed.Targets[app+":v1"].Hashes = metadata.Hashes{"sha512": make([]byte, 64)}
	b.publish(targets, "ci", "qa", "security")
	e := b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci", "qa")
	wantRoles(t, e, "", "", "ci", "qa")
	wantRejected(t, e, "security", "v1", "security.json", "without a sha256 hash")

	b.Targets["security"].Signed.Targets[app+":v1"].Hashes = metadata.Hashes{"blake2b": make([]byte, 64)}
	b.publish("security")
	e = b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, e, "", "", "ci", "qa")
	wantRejected(t, e, "security", "v1", "security.json", "without a sha256 or sha512 hash")
}

// A role whose metadata the snapshot does not list has never signed. The denial says so.
func TestRoleThatTheSnapshotDoesNotList(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate(targets, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "ci")
	b.publish(targets, "ci")
	e := b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci")
	if faults := e.Faults(); len(faults) > 0 {
		t.Errorf("got faults %v, want none", faults)
	}
	wantRejected(t, e, "qa", "v1", "qa.json", "is not listed in snapshot.json: it has never been published")
}

// A delegation that leads back to itself ends the search there.
func TestDelegationsInACircle(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate("ci", "team", "*/*/*")
	d, err := b.Delegate("team", "ci", 0, "*/*/*")
	b.must(err)
	d.KeyIDs, d.Threshold = []string{b.Keys["ci"][0].ID}, 1
	b.Targets["team"].Signed.Delegations.Keys = b.Targets[targets].Signed.Delegations.Keys
	b.sign(app, "v1", digestOf("v1"), "ci", "team")
	b.publish(targets, "ci", "team")
	for _, image := range []string{app + ":v1", app + "@" + digestOf("v1")} {
		wantRoles(t, b.fetch(b.root(), image, nil), "v1", digestOf("v1"), "ci")
	}
}

// Only keys that are not revoked count. The reason is in the denial.
func TestThreatTUFImageSignedByARevokedKey(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate(targets, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.publish(targets, "ci", "qa")
	before := b.fetch(b.root(), app+":v1", nil)
	wantRoles(t, before, "v1", digestOf("v1"), "ci", "qa")
	r := b.root(func(tr *v1alpha1.TrustRoot) {
		tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(b.Keys["qa"][0].ID)}
	})
	after, err := r.Recheck(subject(t, r, app+":v1"), before)
	b.must(err)
	wantRoles(t, after, "v1", digestOf("v1"), "ci")
	wantRejected(t, after, "qa", "v1", "qa.json", "is revoked")

	r = b.root(func(tr *v1alpha1.TrustRoot) {
		tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(b.Keys["snapshot"][0].ID)}
	})
	_, err = r.Recheck(subject(t, r, app+":v1"), before)
	wantFault(t, err, v1alpha1.ReasonKeyRevoked, "snapshot.json")
	b.server.Down()
	_, err = r.Fetch(t.Context(), subject(t, r, app+":v1"), before)
	wantFault(t, err, v1alpha1.ReasonUnreachable, "is revoked")
}

// A delegation that expires stops only its role, and the statement says when.
func TestDelegationThatExpires(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate(targets, "qa", "*/*/*")
	soon := b.now.Add(time.Hour)
	b.Targets["qa"].Signed.Expires = soon
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.publish(targets, "ci", "qa")
	r := b.root()
	e := b.fetch(r, app+":v1", nil)
	statements := e.Statements("v1", "")
	if len(statements) != 2 || !statements[1].NotAfter.Equal(soon) || !statements[0].NotAfter.After(soon) {
		t.Errorf("got %+v, want qa's to end at %s, and ci's later", statements, soon)
	}
	files := e.(trust.Dated).Files()
	if i := slices.IndexFunc(files, func(f trust.File) bool { return f.Name == "qa.json" }); i < 0 ||
		!files[i].Part || !files[i].NotAfter.Equal(soon) {
		t.Errorf("got files %+v, want qa.json among them, which ends at %s", files, soon)
	}
	b.now = soon
	e = b.fetch(r, app+":v1", e)
	wantRoles(t, e, "v1", digestOf("v1"), "ci")
	wantRejected(t, e, "qa", "v1", "qa.json", "expired at", "signed anew")
	if at, file := e.Expiry(); !strings.HasSuffix(file, ".json") || !at.After(soon) {
		t.Errorf("got the expiry %s of %s, want that of a top-level file", at, file)
	}
}

// The grace counts for what was verified before it expired, and not for what had expired when it
// was fetched.
func TestThreatGraceOfATUFDelegation(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate(targets, "qa", "*/*/*")
	b.Targets["qa"].Signed.Expires = b.now.Add(-time.Minute)
	b.Targets["ci"].Signed.Expires = b.now.Add(time.Hour)
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.publish(targets, "ci", "qa")
	grace := func(tr *v1alpha1.TrustRoot) { tr.Spec.ExpiredGrace.Duration = 24 * time.Hour }
	r := b.root(grace)
	about := subject(t, r, app+":v1")
	e := b.fetch(r, app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci")
	packed, err := r.(trust.Keeper).Pack(map[trust.Subject]trust.Evidence{about: e})
	b.must(err)
	b.now = b.now.Add(2 * time.Hour)
	for name, again := range map[string]func(trust.Root) (trust.Evidence, error){
		"Recheck": func(r trust.Root) (trust.Evidence, error) { return r.Recheck(about, e) },
		"Unpack": func(r trust.Root) (trust.Evidence, error) {
			all, err := r.(trust.Keeper).Unpack(about.InRepository(), packed, nil)
			return all[about], err
		},
	} {
		later, err := again(b.root(grace))
		b.must(err)
		wantRoles(t, later, "v1", digestOf("v1"), "ci")
		later, err = again(b.root())
		b.must(err)
		if wantRoles(t, later, "v1", digestOf("v1")); t.Failed() {
			t.Fatalf("by %s", name)
		}
	}
}

// Whoever holds one key of a role can split it into bins with any number of keys of their own.
// These keys are no further signers.
func TestThreatTUFBinsAddNoSigners(t *testing.T) {
	b := newBed(t)
	digest, path := digestOf("v1"), app+":v1"
	d, err := b.Delegate(targets, "qa", 2, "*/*/*")
	b.must(err)
	d.Threshold = 1
	both := b.Keys["qa"]
	b.Keys["qa"] = both[:1]
	var own []*tufserver.Key
	for range 2 {
		k, err := tufserver.NewKey()
		b.must(err)
		own = append(own, k)
	}
	_, err = b.Split("qa", "bin", 1)
	b.must(err)
	b.SplitAmong("qa", own...)
	bin := b.Bin("qa", path)
	b.sign(app, "v1", digest, bin)
	b.publish(targets, "qa", bin)
	one := v1alpha1.TUFRole{Name: "one", Delegations: []v1alpha1.TUFDelegationName{"qa"}}
	pinned := v1alpha1.TUFRole{
		Name: "pinned", Delegations: one.Delegations, Threshold: 2,
		Keys: []v1alpha1.PEM{v1alpha1.PEM(own[0].PEM), v1alpha1.PEM(own[1].PEM)},
	}
	r := b.root(role(v1alpha1.TUFRole{Name: "qa", Threshold: 2}), role(one), role(pinned))
	e := b.fetch(r, path, nil)
	wantRoles(t, e, "v1", digest, "one", "pinned")
	wantRejected(t, e, "qa", "v1", bin, `which is 1 of the 2 keys that role "qa" needs`)

	// The file of the role itself adds none beside its bin, if the same key has signed it.
	b.sign(app, "v1", digest, "qa")
	b.publish("qa")
	e = b.fetch(r, path, e)
	wantRoles(t, e, "v1", digest, "one", "pinned")

	// Two keys of the role sign both files.
	delete(b.Targets["qa"].Signed.Targets, path)
	b.Keys["qa"] = both
	b.SplitAmong("qa", both...)
	b.publish("qa", bin)
	wantRoles(t, b.fetch(r, path, e), "v1", digest, "one", "qa")
}
