package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/webhooks"
)

// TestThreatRevokedKeys revokes keys in a trust root that three managers use. The signing server
// still serves the signatures of these keys.
func TestThreatRevokedKeys(t *testing.T) {
	t.Parallel()
	front := operator.RunBalancer(t)
	args := []string{"--webhook-url=" + front.URL}
	b := &revoking{restarts: restarts{newBed(t, args...), t}, args: args}
	b.managers = []*operator.Manager{b.manager, operator.Run(t, b.kube, args...), operator.Run(t, b.kube, args...)}
	for _, m := range b.managers {
		front.Add(m)
	}
	kubeserver.RunReportCRDs(t, b.kube)
	b.prepare(t)
	t.Run("signer", b.testSigner)
	t.Run("one of two signers", b.testOneOfTwo)
	t.Run("targets, snapshot and timestamp", b.testTopKeys)
	t.Run("as docs/stolen-keys.md says", b.testPage)
	t.Run("restart without the signing server", b.testRestartRevoked)
	t.Run("revocation removed", b.testTakenBack)
	t.Run("root", b.testRootKey)
}

type revoking struct {
	restarts
	args     []string
	managers []*operator.Manager
	gun      string                              // signed by ci, and by both keys of qa
	keys     map[string]*notaryserver.SigningKey // of ci and qa, and the second of qa
}

// prepare signs an image with one key of ci and two keys of qa, and creates a Pod with it.
func (b *revoking) prepare(t *testing.T) {
	b.gun = registry + "/acme/revoked"
	var err error
	b.keys, err = b.signer.CreateRepository(t.Context(), b.gun, "ci", "qa")
	must(t, err)
	second, err := notaryserver.NewSigningKey(notaryserver.ECDSA256, b.gun)
	must(t, err)
	must(t, b.signer.AddDelegation(t.Context(), b.gun, "targets/qa", []*notaryserver.SigningKey{second}))
	must(t, b.signer.ImportKey(t.Context(), b.gun, "qa", second))
	b.keys["qa, second"] = second
	b.sign(t, b.gun, "v1", 1, "ci", "qa")
	awaitManagers(t, b.managers, pinned(b.gun), "the signatures", admits)
	b.admitted(t, running(production, "revoked", b.gun+":v1"))
	b.counts(t, "production", 1, 0)
}

// pinned returns tag v1 of a repository with its digest, as the validating webhook receives it.
func pinned(gun string) string { return fmt.Sprintf("%s:v1@sha256:%064x", gun, 0xabc0001) }

func admits(v verdict) bool { return v.Allowed }

func denies(code int32, texts ...string) func(verdict) bool {
	return func(v verdict) bool {
		return !v.Allowed && v.Code == code &&
			!slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(v.Message, s) })
	}
}

// revoke sets spec.revokedKeys, and returns the time when the API server had stored it.
func (b *revoking) revoke(t *testing.T, ids ...string) time.Time {
	t.Helper()
	b.editRoot(t, func(root *v1alpha1.TrustRoot) {
		root.Spec.RevokedKeys = nil
		for _, id := range ids {
			root.Spec.RevokedKeys = append(root.Spec.RevokedKeys, v1alpha1.KeyID(id))
		}
	})
	return time.Now()
}

// tookSoon logs the time since an edit, which every manager knows now, and checks that it is short.
func tookSoon(t *testing.T, what string, edited time.Time) {
	t.Helper()
	took := time.Since(edited)
	t.Logf("%s: three managers know it %s after the edit", what, took.Round(time.Millisecond))
	if took > soon {
		t.Errorf("%s: took %s, want at most %s", what, took, soon)
	}
}

func (b *revoking) testSigner(t *testing.T) {
	edited := b.revoke(t, b.keys["ci"].KeyID)
	awaitManagers(t, b.managers, pinned(b.gun), "the revocation",
		denies(http.StatusForbidden, `role "ci" has not signed`))
	tookSoon(t, "revoked", edited)
	b.denied(t, pod(production, b.gun+":v1"), http.StatusForbidden, `role "ci" has not signed`, "signed by qa")

	p := b.found(t, "production", v1alpha1.WorkloadCounts{Covered: 1, Violating: 1}, metav1.ConditionFalse,
		v1alpha1.ReasonViolations)
	t.Logf("in the status %s after the edit", time.Since(edited).Round(time.Millisecond))
	if got := violations(p); len(got) != 1 || !strings.HasPrefix(got[0], "Pod revoked "+b.gun) ||
		!strings.HasSuffix(got[0], " ci") {
		t.Errorf("got violations %q, want one of Pod revoked without ci", got)
	}
	b.reports(t, map[string][]string{production: {"fail production revoked"}})
	out, err := b.kube.RunKubectl(t.Context(), "", "get", "imgpol", "production", "--no-headers")
	if fields := strings.Fields(out); err != nil || len(fields) < 6 || fields[4] != "1" || fields[5] != "1" {
		t.Errorf("got columns %q (%v), want 1 covered and 1 violation", out, err)
	}
}

// testOneOfTwo revokes one of two keys of qa that have both signed. The same edit restores the key
// of ci, which shows that the managers know the edit.
func (b *revoking) testOneOfTwo(t *testing.T) {
	edited := b.revoke(t, b.keys["qa"].KeyID)
	awaitManagers(t, b.managers, pinned(b.gun), "the signature of the other key of qa", admits)
	tookSoon(t, "ci restored", edited)
	b.counts(t, "production", 1, 0)
	b.revoke(t, b.keys["qa"].KeyID, b.keys["qa, second"].KeyID)
	awaitManagers(t, b.managers, pinned(b.gun), "the revocation of both",
		denies(http.StatusForbidden, `role "qa" has not signed`))
}

// testTopKeys revokes a top-level key of each of three repositories, and then replaces the keys.
func (b *revoking) testTopKeys(t *testing.T) {
	guns, ids := map[string]string{}, map[string]string{}
	for _, role := range []string{"targets", "snapshot", "timestamp"} {
		guns[role] = b.repository(t, "ci", "qa")
		b.sign(t, guns[role], "v1", 1, "ci", "qa")
		awaitManagers(t, b.managers, pinned(guns[role]), "the signatures", admits)
		top, err := b.signer.TopKeys(guns[role])
		must(t, err)
		ids[role] = top[role]
	}
	edited := b.revoke(t, slices.Collect(maps.Values(ids))...)
	for role, gun := range guns {
		awaitManagers(t, b.managers, pinned(gun), "the revocation",
			denies(http.StatusServiceUnavailable, role+".json", ids[role], "spec.revokedKeys", "notary key rotate"))
	}
	tookSoon(t, "three keys revoked", edited)
	awaitManagers(t, b.managers, pinned(b.gun), "other repositories", admits)
	root := &v1alpha1.TrustRoot{}
	t.Log(
		b.condition(t, root, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse, v1alpha1.ReasonKeyRevoked))
	for role, gun := range guns {
		poll.Await(t, "the key of "+role+" in the status", func() error { return b.statusNames(t, gun, ids[role]) })
	}

	must(t, b.signer.RotateTargetsKey(t.Context(), guns["targets"]))
	must(t, b.signer.RotateSnapshotKey(t.Context(), guns["snapshot"]))
	must(t, b.signer.RotateTimestampKey(t.Context(), guns["timestamp"]))
	for role, gun := range guns {
		awaitManagers(t, b.managers, pinned(gun), "the new key of "+role, admits)
	}
	b.condition(t, root, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue, v1alpha1.ReasonRefreshed)
}

// testRestartRevoked revokes the key of ci and a targets key. Then it starts one manager that has
// only the records: the signing server is down.
func (b *revoking) testRestartRevoked(t *testing.T) {
	other, broken := b.repository(t, "ci", "qa"), b.repository(t, "ci", "qa")
	for _, gun := range []string{other, broken} {
		b.sign(t, gun, "v1", 1, "ci", "qa")
		awaitManagers(t, b.managers, pinned(gun), "the signatures", admits)
		b.written(t, gun, nil)
	}
	b.written(t, b.gun, nil)
	top, err := b.signer.TopKeys(broken)
	must(t, err)
	b.revoke(t, b.keys["ci"].KeyID, top["targets"])
	awaitManagers(t, b.managers, pinned(b.gun), "the revocation",
		denies(http.StatusForbidden, `role "ci" has not signed`))
	for _, m := range b.managers {
		must(t, m.Stop())
	}
	b.notary.Disconnect()
	m := []*operator.Manager{operator.Run(b.all, b.kube, b.args...)}
	if got, err := review(t.Context(), m[0], webhooks.ValidatePath, pinned(b.gun)); err != nil ||
		!denies(http.StatusServiceUnavailable, `role "ci" has not signed`)(got) {
		t.Errorf("after a restart: got %+v, %v; want status 503 without ci", got, err)
	}
	if got, err := review(t.Context(), m[0], webhooks.ValidatePath, pinned(broken)); err != nil ||
		!denies(http.StatusServiceUnavailable, top["targets"])(got) {
		t.Errorf("after a restart, with a revoked targets key: got %+v, %v; want status 503 that names the key", got,
			err)
	}
	awaitManagers(t, m, pinned(other), "a repository without a revoked key", admits)
	b.managers = m
}

// testTakenBack clears spec.revokedKeys while the signing server is still down.
func (b *revoking) testTakenBack(t *testing.T) {
	edited := b.revoke(t)
	awaitManagers(t, b.managers, pinned(b.gun), "the key of ci", admits)
	tookSoon(t, "revocation removed", edited)
	must(t, b.notary.Reconnect())
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue,
		v1alpha1.ReasonRefreshed)
	b.counts(t, "production", 1, 0)
}

// testRootKey revokes the root key, replaces it, and pins the new one.
func (b *revoking) testRootKey(t *testing.T) {
	old := b.pin.KeyID
	edited := b.revoke(t, old)
	awaitManagers(t, b.managers, pinned(b.gun), "the revocation",
		denies(http.StatusServiceUnavailable, "root.json", old, "spec.revokedKeys"))
	tookSoon(t, "root key revoked", edited)
	message := b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse,
		v1alpha1.ReasonKeyRevoked)
	if t.Log(message); !strings.Contains(message, old) {
		t.Errorf("got message %q, want it to name the key %s", message, old)
	}
	p := b.page(t)
	p.does("A root key", 0, []string{"REPOSITORY", b.gun})
	// The command stores the new root at its next read.
	must(t, func() error { _, err := b.signer.Run(t.Context(), "list", b.gun); return err }())
	pin, err := b.signer.Root(b.gun)
	must(t, err)
	if pin.KeyID == old {
		t.Fatal("got the same root key after the rotation, want another")
	}
	poll.Await(t, "a message that names the new root key", func() error { return b.statusNames(t, b.gun, pin.KeyID) })
	awaitManagers(t, b.managers, pinned(b.gun), "the revocation still",
		denies(http.StatusServiceUnavailable, "root.json", old, pin.KeyID))
	p.does("A root key", 1, []string{"NEWKEYID", pin.KeyID})
	awaitManagers(t, b.managers, pinned(b.gun), "the new root key", admits)
	b.counts(t, "production", 1, 0)
}

// statusNames returns nil if the status says that a repository has a revoked key, and names a key.
func (b *revoking) statusNames(t *testing.T, gun, id string) error {
	root := &v1alpha1.TrustRoot{}
	if err := b.Get(t.Context(), client.ObjectKey{Name: "acme-notary"}, root); err != nil {
		return err
	}
	for _, e := range root.Status.Repositories.Errors {
		if e.Repository == gun && e.Reason == v1alpha1.ReasonKeyRevoked && strings.Contains(e.Message, id) {
			return nil
		}
	}
	return fmt.Errorf("got errors %+v", root.Status.Repositories.Errors)
}
