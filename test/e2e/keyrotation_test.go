package e2e

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// TestKeyRotation replaces every key of a repository with the real client, and the certificate and
// CA of its server. Meanwhile it creates Pods continuously: signed Pods must never be denied, and
// unsigned Pods never be admitted. A signature with a new key must count at the first request.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	b := &keyRotation{restarts: restarts{newBed(t), t}}
	t.Run("server-managed snapshot", func(t *testing.T) { b.testKeys(t, false) })
	t.Run("client-managed snapshot", func(t *testing.T) { b.testKeys(t, true) })
	t.Run("delegation key", b.testDelegationKey)
	t.Run("delegation key without another signature", b.testDelegationKeyGone)
	t.Run("certificate and CA of the server", b.testServerCertificate)
	t.Run("root", b.testRoot)
}

type keyRotation struct {
	restarts
	tags int
}

// signNew signs another tag, and checks that the first request admits it.
func (b *keyRotation) signNew(t *testing.T, gun string) {
	t.Helper()
	b.tags++
	tag := fmt.Sprintf("new-%d", b.tags)
	b.sign(t, gun, tag, 100+b.tags, "ci", "qa")
	if err := b.Create(t.Context(), pod(production, gun+":"+tag), client.DryRunAll); err != nil {
		t.Errorf("tag %s, signed a moment ago: got %v, want it admitted", tag, err)
	}
}

// prepare makes a repository, signs v1, and makes the manager fetch it.
func (b *keyRotation) prepare(t *testing.T) string {
	t.Helper()
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	return gun
}

// during calls do while it creates Pods, and creates some more before and after.
func (b *keyRotation) during(t *testing.T, gun string, do func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var signed, unsigned, unchecked atomic.Int64
	repeat := func(tag string, count *atomic.Int64, good func(error) bool) {
		running.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				err := b.Create(ctx, pod(production, gun+":"+tag), client.DryRunAll)
				if ctx.Err() == nil && !good(err) {
					t.Errorf("at %s, tag %s after %d Pods: got %v", time.Now().Format(time.TimeOnly), tag,
						count.Load(), err)
				}
				count.Add(1)
				<-tick.C
			}
		})
	}
	repeat("v1", &signed, func(err error) bool { return err == nil })
	repeat("unsigned", &unsigned, func(err error) bool {
		if err != nil && apierrors.IsServiceUnavailable(err) {
			unchecked.Add(1)
			return true
		}
		return apierrors.IsForbidden(err)
	})
	more := func() {
		from, others := signed.Load(), unsigned.Load()
		poll.Await(t, "more Pods", func() error {
			if signed.Load() < from+10 || unsigned.Load() < others+5 {
				return errors.New("got too few")
			}
			return nil
		})
	}
	more()
	do()
	more()
	cancel()
	running.Wait()
	t.Logf("%d signed Pods; %d unsigned Pods, %d of them denied because of a fault",
		signed.Load(), unsigned.Load(), unchecked.Load())
	b.denied(t, pod(production, gun+":unsigned"), http.StatusForbidden, `role "qa" has not signed`)
}

func (b *keyRotation) testKeys(t *testing.T, ownSnapshot bool) {
	gun := b.prepare(t)
	snapshot := b.signer.RotateSnapshotKey
	if ownSnapshot {
		snapshot = b.signer.RotateOwnSnapshotKey
		b.during(t, gun, func() { must(t, snapshot(t.Context(), gun)) }) // from the server to the client
		b.signNew(t, gun)
	}
	for role, rotate := range map[string]func(context.Context, string) error{
		"targets": b.signer.RotateTargetsKey, "snapshot": snapshot, "timestamp": b.signer.RotateTimestampKey,
	} {
		t.Run(role, func(t *testing.T) {
			before, err := b.signer.TopKeys(gun)
			must(t, err)
			b.during(t, gun, func() {
				must(t, rotate(t.Context(), gun))
				b.signNew(t, gun)
			})
			after, err := b.signer.TopKeys(gun)
			must(t, err)
			if before[role] == after[role] {
				t.Errorf("got the same %s key %s as before, want another", role, after[role])
			}
		})
	}
}

// newKey adds a key to the delegation of ci, and imports it into the client.
func (b *keyRotation) newKey(t *testing.T, gun string) {
	t.Helper()
	key, err := notaryserver.NewSigningKey(notaryserver.ECDSA256, gun)
	must(t, err)
	must(t, b.signer.AddDelegation(t.Context(), gun, "targets/ci", []*notaryserver.SigningKey{key}))
	must(t, b.signer.ImportKey(t.Context(), gun, "ci", key))
}

// repositoryOf is prepare for a repository with a name, and also returns the keys of its roles.
func (b *keyRotation) repositoryOf(t *testing.T, name string) (string, map[string]*notaryserver.SigningKey) {
	t.Helper()
	gun := registry + "/acme/" + name
	keys, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	return gun, keys
}

// testDelegationKey replaces a key without a gap: it adds the new key, signs with it, and then
// removes the old one.
func (b *keyRotation) testDelegationKey(t *testing.T) {
	gun, keys := b.repositoryOf(t, "delegation")
	b.during(t, gun, func() {
		b.newKey(t, gun)
		must(t, b.signer.Witness(t.Context(), gun, "targets/ci"))
		must(t, b.signer.RemoveDelegationKey(t.Context(), gun, "targets/ci", keys["ci"]))
		b.signNew(t, gun)
	})
	b.admitted(t, pod(production, gun+":v1"))
}

// testDelegationKeyGone removes a key before its signatures are renewed. They must not count until
// the new key signs them, and then count at once.
func (b *keyRotation) testDelegationKeyGone(t *testing.T) {
	gun, keys := b.repositoryOf(t, "gone")
	b.newKey(t, gun)
	must(t, b.signer.RemoveDelegationKey(t.Context(), gun, "targets/ci", keys["ci"]))
	b.fetchNow(t, gun)
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "ci" has not signed`, "signed by qa")
	must(t, b.signer.Witness(t.Context(), gun, "targets/ci"))
	b.admitted(t, pod(production, gun+":v1"))
	b.signNew(t, gun)
}

// testRoot rotates the root three times while the trust root pins the first key. Then it restarts
// the manager without the server, lets another trust root verify the chain from the first key, and
// moves the pin to the newest key.
func (b *keyRotation) testRoot(t *testing.T) {
	gun := b.prepare(t)
	first := b.pin.KeyID
	var before *corev1.ConfigMap
	b.during(t, gun, func() {
		must(t, b.signer.RotateRoot(t.Context(), gun))
		b.signNew(t, gun)
		before = b.written(t, gun, nil)
		must(t, b.signer.RotateRoot(t.Context(), gun))
		must(t, b.signer.RotateRoot(t.Context(), gun))
		b.signNew(t, gun)
	})
	newest, err := b.signer.Root(gun)
	must(t, err)
	if newest.KeyID == first {
		t.Fatal("got the same root key after three rotations, want another")
	}
	b.written(t, gun, before)
	t.Run("restart without the server", func(t *testing.T) {
		b.restart(t, b.notary.Disconnect)
		b.admitted(t, pod(production, gun+":v1"))
		b.denied(t, pod(production, gun+":unsigned"), http.StatusServiceUnavailable)
		must(t, b.notary.Reconnect())
		b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue,
			v1alpha1.ReasonRefreshed)
		b.signNew(t, gun)
	})
	t.Run("first sight from the first key", func(t *testing.T) {
		b.create(t, b.trustRoot("cold"))
		cold := b.policy("cold", gun, "cold", "ci", "qa")
		b.create(t, cold)
		b.ready(t, &v1alpha1.ImagePolicy{}, "cold", metav1.ConditionTrue, v1alpha1.ReasonInForce)
		b.admitted(t, pod(production, gun+":v1"))
		must(t, b.Delete(t.Context(), cold))
		must(t, b.Delete(t.Context(), b.trustRoot("cold")))
	})
	t.Run("pin moved", func(t *testing.T) {
		b.during(t, gun, func() {
			for _, pins := range [][]v1alpha1.KeyID{
				{v1alpha1.KeyID(first), v1alpha1.KeyID(newest.KeyID)}, {v1alpha1.KeyID(newest.KeyID)},
			} {
				b.editRoot(t, func(root *v1alpha1.TrustRoot) { root.Spec.Notary.Root.KeyIDs = pins })
				b.ready(t, &v1alpha1.TrustRoot{}, "acme-notary", metav1.ConditionTrue, v1alpha1.ReasonPinned)
			}
			b.signNew(t, gun)
		})
	})
}

// testServerCertificate replaces the certificate of the signing server, and then its CA twice: by a
// bundle that holds both CAs for a while, and by an edit of a ConfigMap.
func (b *keyRotation) testServerCertificate(t *testing.T) {
	front := faultproxy.Run(t, b.notary.URL, b.notary.CA)
	edit := func(change func(*v1alpha1.NotarySpec)) {
		t.Helper()
		b.editRoot(t, func(root *v1alpha1.TrustRoot) { change(root.Spec.Notary) })
		b.ready(t, &v1alpha1.TrustRoot{}, "acme-notary", metav1.ConditionTrue, v1alpha1.ReasonPinned)
	}
	bundle := func(pem []byte) func(*v1alpha1.NotarySpec) {
		return func(n *v1alpha1.NotarySpec) { n.CABundle, n.CABundleFrom = v1alpha1.PEMBundle(pem), nil }
	}
	serve := func(ca *tlstest.CA) {
		cert, err := ca.Issue(pkix.Name{CommonName: "notary"})
		must(t, err)
		front.Serve(cert)
	}
	// A fetch that was in flight when the server dropped its connections has failed. The manager
	// retries it only a moment later, so each part calls fetchNow before it signs.
	edit(func(n *v1alpha1.NotarySpec) { n.Server = front.URL; bundle(front.CA.PEM)(n) })
	gun := b.prepare(t)
	second, err := tlstest.NewCA("second CA")
	must(t, err)
	third, err := tlstest.NewCA("third CA")
	must(t, err)
	t.Run("another certificate of the CA", func(t *testing.T) {
		b.during(t, gun, func() { serve(front.CA); b.fetchNow(t, gun); b.signNew(t, gun) })
	})
	t.Run("another CA, with both in between", func(t *testing.T) {
		b.during(t, gun, func() {
			edit(bundle(append(append([]byte{}, front.CA.PEM...), second.PEM...)))
			b.signNew(t, gun)
			serve(second)
			b.fetchNow(t, gun)
			b.signNew(t, gun)
			edit(bundle(second.PEM))
			b.signNew(t, gun)
		})
	})
	t.Run("ConfigMap edited in place", func(t *testing.T) {
		held := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "notary-ca"},
			Data:       map[string]string{"ca.crt": string(second.PEM)},
		}
		b.create(t, held)
		root := &v1alpha1.TrustRoot{}
		b.during(t, gun, func() {
			edit(func(n *v1alpha1.NotarySpec) {
				n.CABundle, n.CABundleFrom = "", &v1alpha1.KeySource{
					Kind: "ConfigMap", Name: "notary-ca", Key: "ca.crt",
				}
			})
			b.signNew(t, gun)
			serve(third)
			b.condition(t, root, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse,
				v1alpha1.ReasonTLSNotTrusted)
			generation := root.Generation
			held.Data["ca.crt"] += string(third.PEM)
			must(t, b.Update(t.Context(), held))
			b.condition(t, root, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue, v1alpha1.ReasonRefreshed)
			b.fetchNow(t, gun)
			b.signNew(t, gun)
			if root.Generation != generation {
				t.Errorf("got generation %d of the trust root, want %d: the test has not edited it", root.Generation,
					generation)
			}
		})
	})
	edit(func(n *v1alpha1.NotarySpec) { n.Server = b.notary.URL; bundle(b.notary.CA.PEM)(n) })
}
