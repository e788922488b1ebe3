package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// TestRestart stops the operator and starts it again, while the signing server is down, serves old
// metadata, or the trust root is deleted.
func TestRestart(t *testing.T) {
	t.Parallel()
	b := restarts{newBed(t), t}
	t.Run("signing server down", b.testStartWithoutServer)
	t.Run("older metadata", b.testRestartBeforeOlderMetadata)
	t.Run("trust root deleted", b.testRecordsGoWithTheTrustRoot)
}

// restarts is a bed whose manager subtests restart. A new manager runs until the end of the whole
// test.
type restarts struct {
	*bed
	all *testing.T
}

// restart stops the manager, calls meanwhile, and starts another manager.
func (b restarts) restart(t *testing.T, meanwhile func()) {
	t.Helper()
	must(t, b.manager.Stop())
	meanwhile()
	b.manager = operator.Run(b.all, b.kube)
	poll.Await(t, "the API server to call the new manager", func() error {
		err := b.Create(t.Context(), pod(production, registry+"/acme/never-requested:v1"))
		if err == nil {
			return errors.New("admitted, want a denial")
		}
		if strings.Contains(err.Error(), "failed calling webhook") {
			return err
		}
		return nil
	})
}

// record returns the head of a repository's record. It fails if there is none.
func (b restarts) record(ctx context.Context, gun string) (*corev1.ConfigMap, error) {
	all := &corev1.ConfigMapList{}
	if err := b.List(ctx, all, client.InNamespace(operator.Namespace),
		client.MatchingLabels{"countersign.dev/metadata": "head"}); err != nil {
		return nil, err
	}
	for i := range all.Items {
		if all.Items[i].Annotations["countersign.dev/repository"] == gun {
			return &all.Items[i], nil
		}
	}
	return nil, fmt.Errorf("got %d records, and none of %s", len(all.Items), gun)
}

// written waits for a record of a repository that differs from before, and returns it.
func (b restarts) written(t *testing.T, gun string, before *corev1.ConfigMap) *corev1.ConfigMap {
	t.Helper()
	var m *corev1.ConfigMap
	poll.Await(t, "the record of "+gun, func() error {
		var err error
		if m, err = b.record(t.Context(), gun); err != nil {
			return err
		}
		if digest := "countersign.dev/digest"; before != nil && m.Annotations[digest] == before.Annotations[digest] {
			return errors.New("got the same record as before")
		}
		return nil
	})
	return m
}

func (b restarts) testStartWithoutServer(t *testing.T) {
	signed, half := b.repository(t, "ci", "qa"), b.repository(t, "ci", "qa")
	b.sign(t, signed, "v1", 1, "ci", "qa")
	b.sign(t, half, "v1", 1, "ci")
	b.admitted(t, pod(production, signed+":v1"))
	b.denied(t, pod(production, half+":v1"), http.StatusForbidden, `role "qa" has not signed`)
	b.written(t, signed, nil)
	b.written(t, half, nil)
	b.relabelled(t, signed)

	b.restart(t, b.notary.Disconnect)
	b.admitted(t, pod(production, signed+":v1"))
	b.denied(t, pod(production, half+":v1"), http.StatusServiceUnavailable, `role "qa" has not signed`,
		"could not be asked for newer signatures")
	b.denied(t, pod(production, signed+":unsigned"), http.StatusServiceUnavailable, `role "qa" has not signed`)
	b.denied(t, pod(production, registry+"/acme/never-seen:v1"), http.StatusServiceUnavailable,
		`TrustRoot "acme-notary"`)
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse,
		v1alpha1.ReasonUnreachable)
	b.admitted(t, pod(production, signed+":v1"))

	must(t, b.notary.Reconnect())
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue,
		v1alpha1.ReasonRefreshed)
	b.denied(t, pod(production, half+":v1"), http.StatusForbidden, `role "qa" has not signed`)
}

func (b restarts) testRestartBeforeOlderMetadata(t *testing.T) {
	front := faultproxy.Run(t, b.notary.URL, b.notary.CA)
	b.editRoot(t, func(root *v1alpha1.TrustRoot) {
		root.Spec.Notary.Server, root.Spec.Notary.CABundle = front.URL, v1alpha1.PEMBundle(front.CA.PEM)
	})
	// BackUp keeps only files that the manager has fetched through the proxy.
	b.ready(t, &v1alpha1.TrustRoot{}, "acme-notary", metav1.ConditionTrue, v1alpha1.ReasonPinned)
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	before := b.written(t, gun, nil)
	front.BackUp()

	must(t, b.signer.Remove(t.Context(), gun, "v1", "targets/qa"))
	b.fetchNow(t, gun)
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "qa" has not signed`)

	var withdrawn, accepted *corev1.ConfigMap
	refused := func(t *testing.T) {
		t.Helper()
		b.denied(t, pod(production, gun+":v1"), http.StatusServiceUnavailable,
			"was seen before; the server offers old metadata")
		b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionFalse,
			v1alpha1.ReasonRollback)
	}
	t.Run("refused after a restart", func(t *testing.T) {
		b.restart(t, func() { front.Set(faultproxy.Fault{Old: true}) })
		withdrawn = b.written(t, gun, before) // written by the stopped manager when it ended, at the latest
		refused(t)
	})
	t.Run("accepted once, on request", func(t *testing.T) {
		b.editRoot(t, func(root *v1alpha1.TrustRoot) {
			root.Annotations = map[string]string{v1alpha1.AnnotationForgetVersions: "restored from Friday's backup"}
		})
		b.awaitAdmitted(t, "the older signature to count", production, gun+":v1")
		b.forgotten(t)
		accepted = b.written(t, gun, withdrawn)
	})
	t.Run("refused again", func(t *testing.T) {
		front.Set()
		b.fetchNow(t, gun)
		b.awaitDenied(t, "the withdrawal", production, gun+":v1")
		b.written(t, gun, accepted)
		front.Set(faultproxy.Fault{Old: true})
		refused(t)
		b.editRoot(t, func(root *v1alpha1.TrustRoot) { root.Annotations = nil }) // requests nothing
		refused(t)
		b.restart(t, func() {})
		refused(t)
	})
	front.Set()
	b.condition(t, &v1alpha1.TrustRoot{}, "acme-notary", v1alpha1.ConditionFresh, metav1.ConditionTrue,
		v1alpha1.ReasonRefreshed)
	b.denied(t, pod(production, gun+":v1"), http.StatusForbidden, `role "qa" has not signed`)
	t.Run("a version out of reach", func(t *testing.T) { b.testFastForward(t, front) })
}

// relabelled removes the labels of a record, by which a manager finds it at its start. It waits
// until the leader restores them.
func (b restarts) relabelled(t *testing.T, gun string) {
	t.Helper()
	m, err := b.record(t.Context(), gun)
	must(t, err)
	b.edit(t, m, func() { m.Labels = nil })
	b.written(t, gun, nil)
}

// forgotten waits until the status and an event say that the manager has forgotten the versions
// that it had seen.
func (b restarts) forgotten(t *testing.T) {
	t.Helper()
	poll.Await(t, "the status and the event", func() error {
		root := &v1alpha1.TrustRoot{}
		if err := b.Get(t.Context(), client.ObjectKey{Name: "acme-notary"}, root); err != nil {
			return err
		}
		want := root.Annotations[v1alpha1.AnnotationForgetVersions]
		if got := root.Status.LastHandledForgetVersions; got != want {
			return fmt.Errorf("got status %q, want %q", got, want)
		}
		found, err := b.events(t.Context(), func(e *eventsv1.Event) bool {
			return e.Regarding.Name == "acme-notary" && e.Reason == v1alpha1.ReasonVersionsForgotten &&
				strings.Contains(e.Note, v1alpha1.AnnotationForgetVersions)
		})
		if err == nil && len(found) == 0 {
			err = errors.New("got no event about the versions")
		}
		return err
	})
}

// testRecordsGoWithTheTrustRoot deletes the trust root while no operator runs. The garbage
// collector must delete its records.
func (b restarts) testRecordsGoWithTheTrustRoot(t *testing.T) {
	must(t, b.manager.Stop())
	root := b.trustRoot("acme-notary")
	must(t, b.Delete(t.Context(), root))
	poll.Await(t, "the records to be gone", func() error {
		all := &corev1.ConfigMapList{}
		if err := b.List(t.Context(), all, client.InNamespace(operator.Namespace),
			client.HasLabels{"countersign.dev/metadata"}); err != nil {
			return err
		}
		if len(all.Items) > 0 {
			return fmt.Errorf("got %d records, want none", len(all.Items))
		}
		return nil
	})
}
