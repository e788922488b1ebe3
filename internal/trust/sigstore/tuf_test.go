package sigstore

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/sigstoreinstance"
	"github.com/countersign-dev/countersign/internal/testenv/tufmirror"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/test/gate"
)

// tufBed is a registry, an instance of Sigstore, the mirror with its trusted root, and the gate. An
// image is admitted that the identity of ci or the key of qa has signed.
type tufBed struct {
	*identityBed
	test   *testing.T
	gate   *gate.Gate
	mirror *tufmirror.Mirror
	qa     signer
}

const tufRoot = "acme-sigstore"

func newTUFBed(t *testing.T) *tufBed {
	t.Helper()
	b := &tufBed{identityBed: newIdentityBed(t), test: t, qa: newSigner(t)}
	b.mirror = tufmirror.Run(t, time.Now().Add(30*24*time.Hour))
	b.mirror.Publish(b.TrustedRoot())
	return b
}

// spec returns the TrustRoot.
func (b *tufBed) spec() *v1alpha1.TrustRoot {
	tr := trustRoot(b.settings(), identityRole("ci", 1, exactly(testIssuer, testSubject)),
		v1alpha1.SigstoreRole{Name: "qa", Keys: []v1alpha1.PEM{v1alpha1.PEM(b.qa.pem)}})
	tr.Spec.Sigstore.TrustedRoot = &v1alpha1.SigstoreTrustedRoot{TUF: &v1alpha1.SigstoreTUF{
		Mirror: b.mirror.URL, CABundle: v1alpha1.RegistryCABundle(b.mirror.CA.PEM), RootFrom: &trustedSource,
	}}
	return tr
}

// start starts the manager, with records.
func (b *tufBed) start(records map[trust.Subject][]byte, edits ...func(*v1alpha1.TrustRoot)) {
	b.test.Helper()
	t := b.test
	now := time.Now()
	if b.gate != nil {
		b.gate.Stop()
		now = b.gate.Clock.Now()
	}
	b.gate = gate.New(t, now, map[string]*v1alpha1.ImagePolicySpec{"acme": {
		Images: []v1alpha1.ImagePattern{v1alpha1.ImagePattern(b.Host + "/**")}, PinDigests: v1alpha1.PinPods,
		TrustRoots:    []v1alpha1.ObjectName{tufRoot},
		RequiredRoles: []v1alpha1.RoleRequirement{{AnyOf: []v1alpha1.RoleName{"ci", "qa"}}},
	}})
	b.publish(records, edits...)
}

// publish publishes the trust root, as an edit does.
func (b *tufBed) publish(records map[trust.Subject][]byte, edits ...func(*v1alpha1.TrustRoot)) {
	t := b.test
	t.Helper()
	tr := b.spec()
	for _, edit := range edits {
		edit(tr)
	}
	root, err := Format{Clock: b.gate.Clock.Now, Hosts: registry.NewHosts(b.gate.HostsNow)}.Build(tr,
		trust.Material{trustedSource: string(b.mirror.Root())})
	if err != nil {
		t.Fatal(err)
	}
	saved := func(take func(trust.Subject, []byte)) error {
		if packed := records[trust.BaseSubject]; packed != nil {
			take(trust.BaseSubject, packed)
		}
		for about, packed := range records {
			if about != trust.BaseSubject {
				take(about, packed)
			}
		}
		return nil
	}
	_, err = b.gate.Store.PutRootWith(tufRoot, store.Root{Verifier: root}, saved, func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	b.gate.Tracker.Reset(tufRoot, gate.Refresh)
}

// records returns the records that the leader writes.
func (b *tufBed) records() map[trust.Subject][]byte {
	t := b.test
	t.Helper()
	all, snapshot := map[trust.Subject][]byte{}, b.gate.Store.Load()
	for _, k := range snapshot.Repositories() {
		packed, err := snapshot.Root(tufRoot).Verifier.(trust.Keeper).Pack(snapshot.Verified(k))
		if err != nil {
			t.Fatal(err)
		}
		if packed != nil {
			all[k.Subject] = packed
		}
	}
	return all
}

// byIdentity pushes an image that the identity of ci has signed, in both layouts.
func (b *identityBed) byIdentity() image {
	on := b.push()
	for _, l := range both() {
		b.pushSigned(on, b.sign(l, on, certificate()).logged())
	}
	return on
}

// byKey pushes an image that the key of qa has signed.
func (b *tufBed) byKey() image {
	on := b.push()
	content := payload(cosignType, "", on.DigestStr())
	b.tagged(on, layerOf(content, b.qa.sign(b.test, content), simpleSigning))
	return on
}

// decides checks what the gate decides about an image.
func (b *tufBed) decides(t *testing.T, what string, on image, want gate.Verdict, says ...string) {
	t.Helper()
	if err := b.gate.Admit(t, on.Name()).Is(want, on.DigestStr(), says...); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// soon advances the clock until the gate decides so about an image.
func (b *tufBed) soon(t *testing.T, what string, on image, want gate.Verdict, says ...string) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if err = b.gate.Admit(t, on.Name()).Is(want, on.DigestStr(), says...); err == nil {
			return
		}
		b.gate.Clock.Step(time.Second)
		<-time.After(5 * time.Millisecond)
	}
	t.Errorf("%s: %v", what, err)
}

// refreshes advances the clock until the trusted root was fetched again.
func (b *tufBed) refreshes(t *testing.T) {
	t.Helper()
	if err := b.gate.Tracker.Renew(t.Context(), trust.Key{Root: tufRoot, Subject: trust.BaseSubject},
		b.later(2*time.Second)); err != nil {
		t.Error(err)
	}
}

func (b *tufBed) later(d time.Duration) time.Time {
	b.gate.Clock.Step(d)
	return b.gate.Clock.Now()
}

// and returns the trusted root of two instances.
func and(t *testing.T, one, other *sigstoreinstance.Instance) []byte {
	t.Helper()
	var further prototrust.TrustedRoot
	if err := protojson.Unmarshal(other.TrustedRoot(), &further); err != nil {
		t.Fatal(err)
	}
	return one.TrustedRoot(func(r *prototrust.TrustedRoot) {
		r.CertificateAuthorities = append(r.CertificateAuthorities, further.CertificateAuthorities...)
		r.Tlogs = append(r.Tlogs, further.Tlogs...)
		r.Ctlogs = append(r.Ctlogs, further.Ctlogs...)
		r.TimestampAuthorities = append(r.TimestampAuthorities, further.TimestampAuthorities...)
	})
}

// The first request fetches the trusted root. The status says where it is from, and what it lists.
func TestTrustedRootByTUF(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	identity, key, none := b.byIdentity(), b.byKey(), b.push()
	b.start(nil)
	b.decides(t, "by an identity", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
	b.decides(t, "unsigned", none, gate.Denied)
	notes := strings.Join(b.gate.Store.Load().Root(tufRoot).Notes, "; ")
	want := "the trusted root is from " + b.mirror.URL +
		" (version 1 of its root.json and version 2 of its targets.json), with 1 certificate authority, 2 transparency logs and 1 timestamp authority"
	if notes != want {
		t.Errorf("got the notes %q, want %q", notes, want)
	}
	if s := b.gate.Tracker.Status(tufRoot); s.ExpiresFirst != "trusted root root.json" || s.Tracked != 1 {
		t.Errorf("got %q as what expires first and %d repositories, want the trusted root, and 1",
			s.ExpiresFirst, s.Tracked)
	}
}

// A mirror that is down when the TrustRoot is created is "could not check" for what needs the
// trusted root, and for nothing else.
func TestTUFMirrorDownAtTheFirstStart(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	identity, key, none := b.byIdentity(), b.byKey(), b.push()
	b.mirror.Disconnect()
	b.start(nil)
	b.decides(t, "by an identity", identity, gate.CouldNotCheck,
		"the trusted root of "+b.mirror.URL+" is not available")
	b.decides(t, "by a key", key, gate.Admitted)
	b.decides(t, "unsigned", none, gate.Denied)
	if err := b.mirror.Reconnect(); err != nil {
		t.Fatal(err)
	}
	b.soon(t, "by an identity, once the mirror is up", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
}

// TestThreatFetchedTrustedRootRotates publishes a trusted root with a further CA and log, and then
// one without the old ones, while decisions run. No decision is wrong: what the trusted root
// vouches for is admitted all the time, and what it no longer vouches for is denied at once.
func TestThreatFetchedTrustedRootRotates(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	next := &identityBed{registryBed: b.registryBed, Instance: sigstoreinstance.New(t)}
	old, key, young := b.byIdentity(), b.byKey(), next.byIdentity()
	b.start(nil)
	b.decides(t, "signed with the old CA", old, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
	b.decides(t, "signed with a CA that is not listed", young, gate.Denied, "no authority of the trusted root")
	last := next.TrustedRoot()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				snapshot := b.gate.Store.Load()
				for _, on := range []image{old, key} {
					want := on.Name() == key.Name() || !rotated(snapshot, last)
					d := snapshot.Policies.Decide(policy.Request{Image: on.Name(), Now: b.gate.Clock.Now()}, snapshot)
					if (d.Verdict == policy.Admitted) != want {
						t.Errorf("%s: got verdict %v (%s), want it admitted: %t", on.Name(), d.Verdict, d.Message, want)
						return
					}
				}
			}
		})
	}
	b.mirror.Publish(and(t, b.Instance, next.Instance))
	b.mirror.RotateKeys()
	b.refreshes(t)
	b.decides(t, "signed with the new CA", young, gate.Admitted)
	b.decides(t, "signed with the old CA", old, gate.Admitted)
	b.mirror.Publish(last)
	b.refreshes(t)
	b.decides(t, "signed with the new CA", young, gate.Admitted)
	b.decides(t, "signed with the CA that was removed", old, gate.Denied, "no authority of the trusted root")
	b.decides(t, "by a key", key, gate.Admitted)
	stop.Store(true)
	wg.Wait()
}

// rotated reports whether the root of a snapshot verifies with a trusted root.
func rotated(snapshot *store.Snapshot, trustedRoot []byte) bool {
	root := snapshot.Root(tufRoot).Verifier.(*Root).base.root
	return root != nil && root.ID() == hexSHA256(trustedRoot)
}

// A restart with the mirror and the registry down decides as before.
func TestRestartWithTheTUFMirrorDown(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	identity, key := b.byIdentity(), b.byKey()
	b.start(nil)
	b.decides(t, "by an identity", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
	records := b.records()
	b.mirror.Disconnect()
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	b.start(records)
	b.decides(t, "by an identity", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
}

// TestThreatFrozenTrustedRoot lets the metadata expire while the mirror serves nothing new. What
// needs the trusted root then cannot be checked, and what does not goes on. A restart changes
// nothing about that. What was verified before counts again with a newer trusted root, though the
// registry is down.
func TestThreatFrozenTrustedRoot(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	identity, key := b.byIdentity(), b.byKey()
	b.start(nil)
	b.mirror.Renew(b.gate.Clock.Now().Add(24 * time.Hour))
	b.refreshes(t)
	b.decides(t, "by an identity", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
	records := b.records()
	b.gate.Clock.Step(23 * time.Hour)
	b.decides(t, "before the expiry", identity, gate.Admitted)
	b.gate.Clock.Step(time.Hour)
	b.soon(t, "by an identity, after the expiry", identity, gate.CouldNotCheck, "expired at")
	b.decides(t, "by a key", key, gate.Admitted)
	for _, written := range []map[trust.Subject][]byte{records, b.records()} {
		if len(written) != 2 {
			t.Errorf("got %d records, want that of the repository and that of the trusted root", len(written))
		}
		b.start(written)
		b.soon(t, "after a restart", identity, gate.CouldNotCheck, "expired at")
		b.decides(t, "by a key", key, gate.Admitted)
		k := trust.Key{Root: tufRoot, Subject: b.gate.Store.Load().Subject(tufRoot, parse(t, identity.Name()))}
		if e, _, err := b.gate.Store.Load().Evidence(k); err != nil || !e.Signed() {
			t.Errorf("got %+v and %v, want evidence that is kept as that of a signed image", e, err)
		}
	}
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	b.mirror.Renew(b.gate.Clock.Now().Add(7 * 24 * time.Hour))
	b.refreshes(t)
	b.decides(t, "with the new metadata", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
}

// TestThreatRollbackOfTheTrustedRootInUse serves an older repository, with a CA that was removed
// since. What is in use stays, also after a restart.
func TestThreatRollbackOfTheTrustedRootInUse(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	next := &identityBed{registryBed: b.registryBed, Instance: sigstoreinstance.New(t)}
	removed, young := b.byIdentity(), next.byIdentity()
	older := b.mirror.Files()
	b.mirror.Publish(next.TrustedRoot())
	b.start(nil)
	b.decides(t, "signed with the new CA", young, gate.Admitted)
	b.decides(t, "signed with the CA that was removed", removed, gate.Denied)
	records := b.records()
	b.mirror.Restore(older)
	for range 2 {
		err := b.gate.Tracker.Renew(t.Context(), trust.Key{Root: tufRoot, Subject: trust.BaseSubject},
			b.later(2*time.Second))
		if f := trust.AsFault(err, "none"); f.Reason != v1alpha1.ReasonRollback {
			t.Errorf("got %v, want a rollback", err)
		}
		b.decides(t, "signed with the CA that was removed", removed, gate.Denied)
		b.decides(t, "signed with the new CA", young, gate.Admitted)
		b.start(records)
	}
}

// An edit keeps the trusted root, so that it needs no mirror. The faults of its absence do not pile
// up in what is held.
func TestEditWithTheTUFMirrorDown(t *testing.T) {
	t.Parallel()
	b := newTUFBed(t)
	identity, key := b.byIdentity(), b.byKey()
	b.start(nil)
	b.decides(t, "by an identity", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
	b.mirror.Disconnect()
	b.publish(nil)
	b.decides(t, "by an identity", identity, gate.Admitted)
	b.decides(t, "by a key", key, gate.Admitted)
	k := trust.Key{Root: tufRoot, Subject: b.gate.Store.Load().Subject(tufRoot, parse(t, identity.Name()))}
	for range 3 {
		b.publish(nil, func(tr *v1alpha1.TrustRoot) { // another repository: no trusted root counts
			tr.Spec.Sigstore.TrustedRoot.TUF.RootFrom = nil
		})
		e, _, err := b.gate.Store.Load().Evidence(k)
		if err != nil || len(e.Faults()) != 2 || len(e.Statements("", "")) > 0 || !e.Signed() {
			t.Fatalf("got %+v and %v, want evidence with the faults of two signatures", e, err)
		}
		b.publish(nil)
	}
	e, _, err := b.gate.Store.Load().Evidence(k)
	if err != nil || len(e.Faults()) > 0 || rolesOf(e) != "ci" {
		t.Errorf("got roles %q, the faults %v and %v, want ci, and none", rolesOf(e), e.Faults(), err)
	}
}

// A TrustRoot whose TUF repository cannot be used is not Ready. The message names the field.
func TestUnusableTUF(t *testing.T) {
	b := newTUFBed(t)
	for name, c := range map[string]struct {
		edit   func(*v1alpha1.SigstoreTUF)
		value  string
		reason string
		says   string
	}{
		"a rootFrom that is no root": {
			func(*v1alpha1.SigstoreTUF) {}, "junk", v1alpha1.ReasonInvalidKey,
			"spec.sigstore.trustedRoot.tuf.rootFrom (ConfigMap trusted-root, entry trusted_root.json)",
		},
		"a rootFrom with a trusted root": {
			func(*v1alpha1.SigstoreTUF) {}, string(b.TrustedRoot()), v1alpha1.ReasonInvalidKey, "rootFrom",
		},
		"an empty rootFrom": {func(*v1alpha1.SigstoreTUF) {}, "", v1alpha1.ReasonInvalidKey, "rootFrom"},
		"http": {
			func(tuf *v1alpha1.SigstoreTUF) { tuf.Mirror = "http://tuf.example.com" }, string(b.mirror.Root()),
			v1alpha1.ReasonInvalidSpec,
			`spec.sigstore.trustedRoot.tuf.mirror: server: "http://tuf.example.com" is not encrypted`,
		},
		"a caBundle without certificates": {
			func(tuf *v1alpha1.SigstoreTUF) { tuf.CABundle = "junk" }, string(b.mirror.Root()),
			v1alpha1.ReasonInvalidKey, "spec.sigstore.trustedRoot.tuf.caBundle",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := b.spec()
			c.edit(tr.Spec.Sigstore.TrustedRoot.TUF)
			_, err := Format{}.Build(tr, trust.Material{trustedSource: c.value})
			f := trust.AsFault(err, "none")
			if err == nil || f.Reason != c.reason || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v with reason %s, want %s with %q in it", err, f.Reason, c.reason, c.says)
			}
		})
	}
	tr := b.spec()
	refers := fmt.Sprint(Format{}.Refers(&tr.Spec))
	if !strings.Contains(refers, "trusted-root") {
		t.Errorf("got the references %s, want rootFrom among them", refers)
	}
	tr.Spec.Sigstore.TrustedRoot.TUF = &v1alpha1.SigstoreTUF{}
	if root, err := (Format{}).Build(tr, nil); err != nil || !root.(*Root).HasBase() {
		t.Errorf("got %v, want the public instance for an empty tuf", err)
	}
}
