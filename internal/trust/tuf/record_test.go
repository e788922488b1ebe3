package tuf_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// signedBed has an image that ci and qa have signed.
func signedBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate(targets, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.publish(targets, "ci", "qa")
	return b
}

func pack(t *testing.T, r trust.Root, held map[trust.Subject]trust.Evidence) []byte {
	t.Helper()
	packed, err := r.(trust.Keeper).Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// unpack reads a record.
func unpack(r trust.Root, packed []byte, held map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence,
	error) {
	return r.(trust.Keeper).Unpack(trust.Subject{Shared: true}, packed, held)
}

var shared = trust.Subject{Shared: true}

// With the server down, a restart has all evidence of the record, and nothing that is not signed.
func TestRestartWithTheTUFServerDown(t *testing.T) {
	b := signedBed(t)
	r := b.root()
	tag, whole, none := subject(t, r, app+":v1"), subject(t, r, app+"@"+digestOf("v1")), subject(t, r, app+":none")
	held := map[trust.Subject]trust.Evidence{
		tag: b.fetch(r, app+":v1", nil), whole: b.fetch(r, app+"@"+digestOf("v1"), nil),
		none: b.fetch(r, app+":none", nil),
	}
	packed := pack(t, r, held)
	if again := pack(t, r, held); !bytes.Equal(packed, again) {
		t.Error("got another record of the same evidence, want the same bytes")
	}
	b.server.Down()
	after := b.root()
	found, err := unpack(after, packed, nil)
	b.must(err)
	if _, ok := found[none]; ok || len(found) != 2 {
		t.Errorf("got %d subjects, want the two that are signed", len(found))
	}
	wantRoles(t, found[tag], "v1", digestOf("v1"), "ci", "qa")
	wantRoles(t, found[whole], "", digestOf("v1"), "ci", "qa")
	_, err = after.Fetch(t.Context(), tag, found[tag])
	wantFault(t, err, v1alpha1.ReasonUnreachable)
	wantRoles(t, found[tag], "v1", digestOf("v1"), "ci", "qa")
}

// Older files than those that were seen are refused: by the process, after an edit of the trust
// root, after a restart, and by a replica that has read the record.
func TestThreatTUFRollbackOfImages(t *testing.T) {
	b := signedBed(t)
	r := b.root()
	about := subject(t, r, app+":v1")
	old := b.fetch(r, app+":v1", nil)
	oldRecord, oldFiles := pack(t, r, map[trust.Subject]trust.Evidence{about: old}), b.server.Files()
	delete(b.Targets["qa"].Signed.Targets, app+":v1") // qa withdraws its signature
	b.publish("qa")
	revoked := b.fetch(r, app+":v1", old)
	wantRoles(t, revoked, "v1", digestOf("v1"), "ci")
	record := pack(t, r, map[trust.Subject]trust.Evidence{about: revoked})
	b.server.Restore(oldFiles)

	refuses := func(name string, r trust.Root, held trust.Evidence) {
		t.Helper()
		got, err := r.Fetch(t.Context(), about, held)
		if err == nil {
			t.Fatalf("%s: got %+v, want the older files refused", name, got.Statements("v1", ""))
		}
		wantFault(t, err, v1alpha1.ReasonRollback)
	}
	refuses("the process", r, revoked)
	refuses("another image of the process", r, nil)
	refuses("the process, with older evidence", r, old)
	edited := b.root()
	again, err := edited.Recheck(about, revoked)
	b.must(err)
	wantRoles(t, again, "v1", digestOf("v1"), "ci")
	refuses("an edited trust root", edited, again)
	refuses("an edited trust root, evidence of the one before", b.root(), revoked)
	other := b.root()
	_, err = other.Recheck(about, revoked)
	b.must(err)
	refuses("an edited trust root, another image", other, nil)
	restarted := b.root()
	found, err := unpack(restarted, record, nil)
	b.must(err)
	wantRoles(t, found[about], "v1", digestOf("v1"), "ci")
	refuses("a restart", restarted, found[about])
	refuses("a restart, another image", restarted, nil)

	// An older record adds nothing, whatever it says.
	found, err = unpack(restarted, oldRecord, map[trust.Subject]trust.Evidence{about: found[about]})
	b.must(err)
	if len(found) > 0 {
		t.Errorf("got %+v from an older record, want nothing", found)
	}
	found, err = unpack(r, oldRecord, nil)
	b.must(err)
	wantRoles(t, found[about], "v1", digestOf("v1"), "ci")

	// An administrator can make the operator forget the versions.
	forget := b.root(func(tr *v1alpha1.TrustRoot) {
		tr.Annotations = map[string]string{v1alpha1.AnnotationForgetVersions: "1"}
	})
	if _, err = forget.Recheck(about, revoked); err != nil { // as the publication does, and drops it
		t.Fatal(err)
	}
	wantRoles(t, b.fetch(forget, app+":v1", nil), "v1", digestOf("v1"), "ci", "qa")
}

// A record that is read while older files are being fetched still counts after that.
func TestThreatTUFRollbackDuringARecord(t *testing.T) {
	b := signedBed(t)
	r, replica := b.root(), b.root()
	about := subject(t, r, app+":v1")
	held := b.fetch(r, app+":v1", nil)
	oldFiles := b.server.Files()
	delete(b.Targets["qa"].Signed.Targets, app+":v1")
	b.publish("qa")
	record := pack(t, replica, map[trust.Subject]trust.Evidence{about: b.fetch(replica, app+":v1", nil)})
	b.server.Restore(oldFiles)
	b.server.Fault(func(path string, _ http.ResponseWriter) bool {
		if strings.HasSuffix(path, "/timestamp.json") {
			if _, err := unpack(r, record, map[trust.Subject]trust.Evidence{about: held}); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if got, err := r.Fetch(t.Context(), about, nil); err == nil {
		t.Errorf("got %+v by the older files, want them refused", got.Statements("v1", ""))
	} else {
		wantFault(t, err, v1alpha1.ReasonRollback)
	}
	derived := r.(trust.Deriver).Derive(about)
	if derived == nil {
		t.Fatal("got no evidence of the record, want it")
	}
	wantRoles(t, derived, "v1", digestOf("v1"), "ci")
}

// Expired metadata of a record proves nothing, and its versions still count.
func TestThreatExpiredTUFRecordKeepsTheVersions(t *testing.T) {
	b := signedBed(t)
	oldFiles := b.server.Files()
	b.Timestamp.Signed.Expires = b.now.Add(time.Hour)
	b.publish("qa")
	r := b.root()
	about := subject(t, r, app+":v1")
	record := pack(t, r, map[trust.Subject]trust.Evidence{about: b.fetch(r, app+":v1", nil)})
	b.now = b.now.Add(2 * time.Hour)
	b.server.Restore(oldFiles)
	restarted := b.root()
	found, err := unpack(restarted, record, nil)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json")
	if found[about] == nil {
		t.Fatal("got no evidence beside the fault, want one that remembers the versions")
	}
	wantRoles(t, found[about], "", "")
	for _, held := range []trust.Evidence{nil, found[about]} { // another image first
		_, err = restarted.Fetch(t.Context(), about, held)
		wantFault(t, err, v1alpha1.ReasonRollback)
	}
}

// The same for what is held when the TrustRoot is edited.
func TestThreatExpiredTUFEvidenceKeepsTheVersions(t *testing.T) {
	b := signedBed(t)
	oldFiles := b.server.Files()
	b.Timestamp.Signed.Expires = b.now.Add(time.Hour)
	b.publish("qa")
	r := b.root()
	about, held := subject(t, r, app+":v1"), b.fetch(r, app+":v1", nil)
	b.now = b.now.Add(2 * time.Hour)
	b.server.Restore(oldFiles)
	edited := b.root()
	_, err := edited.Recheck(about, held)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json")
	for _, one := range []trust.Evidence{nil, held} { // another image first
		_, err = edited.Fetch(t.Context(), about, one)
		wantFault(t, err, v1alpha1.ReasonRollback)
	}
}

// Metadata that is never renewed ends, with the server up or down.
func TestThreatTUFFreezeOfImages(t *testing.T) {
	b := signedBed(t)
	b.Timestamp.Signed.Expires = b.now.Add(time.Hour)
	b.publish("qa")
	r := b.root()
	e := b.fetch(r, app+":v1", nil)
	if at, file := e.Expiry(); !at.Equal(b.now.Add(time.Hour)) || file != "timestamp.json" {
		t.Errorf("got the expiry %s of %s, want that of timestamp.json", at, file)
	}
	b.now = b.now.Add(time.Hour)
	_, err := r.Fetch(t.Context(), subject(t, r, app+":v1"), e)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json")
	_, err = b.root().Recheck(subject(t, r, app+":v1"), e)
	wantFault(t, err, v1alpha1.ReasonMetadataExpired, "timestamp.json")
}

// A stolen key has signed a version that cannot be exceeded. Once a new root replaces the keys of
// timestamp and snapshot, versions start anew.
func TestThreatTUFFastForwardOfImages(t *testing.T) {
	b := signedBed(t)
	r := b.root()
	good := b.server.Files()
	snapshot, timestamp := b.Snapshot.Signed.Version, b.Timestamp.Signed.Version
	b.Snapshot.Signed.Version, b.Timestamp.Signed.Version = 1<<50, 1<<50
	b.publish("qa")
	e := b.fetch(r, app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci", "qa")
	about := subject(t, r, app+":v1")
	packed := pack(t, r, map[trust.Subject]trust.Evidence{about: e})

	b.server.Restore(good)
	b.Snapshot.Signed.Version, b.Timestamp.Signed.Version = snapshot, timestamp
	b.sign(app, "v1", digestOf("v1"), "ci")
	b.publish("ci")
	_, err := r.Fetch(t.Context(), about, e)
	wantFault(t, err, v1alpha1.ReasonRollback)

	b.must(b.Rotate(metadata.TIMESTAMP))
	b.must(b.Rotate(metadata.SNAPSHOT))
	b.publish(metadata.ROOT, "ci", "qa")
	wantRoles(t, b.fetch(r, app+":v1", e), "v1", digestOf("v1"), "ci", "qa")
	restarted := b.root()
	found, err := unpack(restarted, packed, nil)
	b.must(err)
	wantRoles(t, b.fetch(restarted, app+":v1", found[about]), "v1", digestOf("v1"), "ci", "qa")
}

// The root is rotated step by step from the pinned one. A root that the one before did not sign is
// refused.
func TestRootRotationOfATUFRepository(t *testing.T) {
	b := signedBed(t)
	r := b.root()
	e := b.fetch(r, app+":v1", nil)
	for range 3 {
		b.must(b.Rotate(metadata.ROOT))
		b.publish(metadata.ROOT)
		b.Keys[metadata.ROOT] = b.Keys[metadata.ROOT][:1]
	}
	wantRoles(t, b.fetch(r, app+":v1", e), "v1", digestOf("v1"), "ci", "qa")
	wantRoles(t, b.fetch(b.root(), app+":v1", nil), "v1", digestOf("v1"), "ci", "qa")
	later := b.root(func(tr *v1alpha1.TrustRoot) { tr.Spec.TUF.Root = b.RootJSON(3) })
	again, err := later.Recheck(subject(t, r, app+":v1"), e)
	b.must(err)
	wantRoles(t, again, "v1", digestOf("v1"), "ci", "qa")
	if got := later.(trust.Described).Fingerprints(); len(got) != 1 || !strings.Contains(b.RootJSON(3), got[0]) {
		t.Errorf("got fingerprints %q, want the root key of the pinned root", got)
	}

	b.Keys[metadata.ROOT] = nil
	b.must(b.Rotate(metadata.ROOT)) // without the key before
	b.publish(metadata.ROOT)
	_, err = r.Fetch(t.Context(), subject(t, r, app+":v1"), e)
	wantFault(t, err, v1alpha1.ReasonRootNotPinned, "5.root.json")
	stranger := newBed(t)
	foreign := b.root(func(tr *v1alpha1.TrustRoot) { tr.Spec.TUF.Root = stranger.RootJSON(1) })
	if _, err := foreign.Recheck(subject(t, r, app+":v1"), e); err == nil {
		t.Error("got the evidence verified from the root of another repository, want a fault")
	}
}

// Nothing in a record counts but what verifies.
func TestThreatForgedRecordOfImages(t *testing.T) {
	b := signedBed(t)
	r := b.root()
	about := subject(t, r, app+":v1")
	packed := pack(t, r, map[trust.Subject]trust.Evidence{about: b.fetch(r, app+":v1", nil)})
	for name, data := range map[string][]byte{
		"empty": {}, "cut": packed[:len(packed)-9], "no header": packed[bytes.IndexByte(packed, '\n'):],
		"of another version":      bytes.Replace(packed, []byte("countersign tuf 1"), []byte("countersign tuf 2"), 1),
		"with values without end": append([]byte(`{"images":[`+strings.Repeat(`{},`, 1<<17)+`{}]}`+"\n"), packed...),
	} {
		found, err := unpack(b.root(), data, nil)
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid)
		if len(found) > 0 {
			t.Errorf("%s: got %+v, want nothing", name, found)
		}
	}
	// A name in it is a subject only, and proves nothing.
	other := bytes.Replace(packed, []byte(`"tag":"v1"`), []byte(`"tag":"v2"`), 1)
	found, err := unpack(b.root(), other, nil)
	b.must(err)
	wantRoles(t, found[subject(t, r, app+":v2")], "", "")
	stranger := newBed(t)
	if found, err := unpack(stranger.root(), packed, nil); err == nil {
		t.Errorf("got %+v of another root, want a fault", found)
	}
	if _, err := r.(trust.Keeper).Unpack(trust.Subject{Repository: app}, packed, nil); err == nil {
		t.Error("got a record of all images for one, want a fault")
	}
}

// A store keeps all images of a TUF repository in one record, and restores them from it.
func TestStoreKeepsOneRecordForAllImages(t *testing.T) {
	b := signedBed(t)
	const second = "registry.example.com/acme/second"
	b.sign(second, "v1", digestOf("second"), "ci")
	b.publish("ci")
	r := b.root()
	clock := clocktesting.NewFakeClock(b.now)
	key := func(image string) trust.Key { return trust.Key{Root: "acme", Subject: subject(t, r, image)} }
	first := store.New(store.Options{})
	first.PutRoot("acme", store.Root{Verifier: r})
	tracker := store.NewTracker(first, clock, func(string) {})
	for _, image := range []string{app + ":v1", second + ":v1", second + ":none"} {
		b.must(tracker.Ensure(t.Context(), key(image)))
	}
	all := first.Load().Repositories()
	if want := (trust.Key{Root: "acme", Subject: shared}); len(all) != 1 || all[0] != want {
		t.Fatalf("got records of %v, want one", all)
	}
	if status := tracker.Status("acme"); status.Tracked != 2 {
		t.Errorf("got %d repositories tracked, want 2", status.Tracked)
	}
	packed := pack(t, r, first.Load().Verified(all[0]))
	b.server.Down()
	after := b.root()
	restarted := store.New(store.Options{})
	restarted.PutRoot("acme", store.Root{Verifier: after})
	root := restarted.Load().Root("acme")
	b.must(store.NewTracker(restarted, clock, func(string) {}).Restore(all[0], root, packed))
	for image, digest := range map[string]string{app + ":v1": digestOf("v1"), second + ":v1": digestOf("second")} {
		e, _, err := restarted.Load().Evidence(key(image))
		b.must(err)
		if len(e.Statements("v1", digest)) == 0 {
			t.Errorf("%s: got no statement from the record, want those of before", image)
		}
	}
}

// A new tag of metadata that is held needs no server. One that is not signed does: it is denied
// only after a refresh.
func TestNewTagWithTheTUFServerDown(t *testing.T) {
	b := signedBed(t)
	b.sign(app, "v2", digestOf("v2"), "ci")
	b.delegate(targets, "late", "registry.example.com/late/*")
	b.sign("registry.example.com/late/app", "v1", digestOf("late"), "ci", "late")
	b.Timestamp.Signed.Expires = b.now.Add(time.Hour)
	b.publish(targets, "ci", "late")
	r := b.root()
	s := store.New(store.Options{})
	s.PutRoot("acme", store.Root{Verifier: r})
	tracker := store.NewTracker(s, clocktesting.NewFakeClock(b.now), func(string) {})
	key := func(image string) trust.Key { return trust.Key{Root: "acme", Subject: subject(t, r, image)} }
	b.must(tracker.Ensure(t.Context(), key(app+":v1")))
	b.server.Down()
	for _, image := range []string{app + ":v2", app + "@" + digestOf("v2")} {
		b.must(tracker.Ensure(t.Context(), key(image)))
		e, _, err := s.Load().Evidence(key(image))
		b.must(err)
		wantRoles(t, e, "v2", digestOf("v2"), "ci")
	}
	for name, image := range map[string]string{
		"not signed": app + ":none", "signed in a file that is not loaded": "registry.example.com/late/app:v1",
	} {
		if err := tracker.Ensure(t.Context(), key(image)); err == nil {
			t.Errorf("%s: got evidence without the server, want a fault", name)
		}
	}
	if err := tracker.Renew(t.Context(), key(app+":v2"), b.now); err == nil {
		t.Error("got evidence refreshed without the server, want a fault")
	}
	rare := b.root(func(tr *v1alpha1.TrustRoot) { tr.Spec.RefreshInterval.Duration = 1 }) // nanosecond
	e, _, err := s.Load().Evidence(key(app + ":v1"))
	b.must(err)
	_, err = rare.Recheck(key(app+":v1").Subject, e)
	b.must(err)
	if e := rare.(trust.Deriver).Derive(subject(t, r, app+":v2")); e != nil {
		t.Errorf("got %v from metadata that nothing refreshes, want nothing", e)
	}
	b.now = b.now.Add(time.Hour)
	if e := r.(trust.Deriver).Derive(subject(t, r, app+":v2")); e != nil {
		t.Errorf("got %v from metadata that has expired, want nothing", e)
	}
}
