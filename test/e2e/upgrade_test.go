package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/certs"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/kustomize"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/previous"
)

// upgrades is an installation of the previous release, from its own manifests and with two replicas
// of its own program.
type upgrades struct {
	restarts
	front *operator.Balancer
	alive []*operator.Manager
	load  *load

	previous          *previous.Release
	manifests, binary string // of this version

	signed, half string // repositories that ci and qa have signed, and that only ci has signed
	edits        int
	kept         kept
}

// kept is the state that neither an upgrade nor a downgrade may change.
type kept struct {
	Certificate map[string][]byte
	Webhooks    [2]types.UID
	Root        v1alpha1.TrustRootSpec
	Policy      v1alpha1.ImagePolicySpec
	Record      string // the digest in the record of the signed repository
}

// TestUpgrade replaces the previous release with this version, and this version with the previous
// release, one replica after the other. Meanwhile it creates Pods continuously. Then this version
// starts with the previous release's records, while the signing server is down.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	u := newUpgrades(t)
	u.decides(t)
	u.written(t, u.signed, nil)
	u.kept = u.state(t)
	dry := *u.bed // dry runs leave no Pods behind
	dry.Client = client.NewDryRunClient(u.Client)
	u.load = dry.load(t, u.signed, nil)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"upgrade", u.testUpgrade},
		{"downgrade", u.testDowngrade},
	} {
		if !t.Run(part.name, part.run) {
			break
		}
	}
	u.load.stop(t)
	if !t.Failed() {
		t.Run("signing server down", u.testRecordsOfThePrevious)
	}
}

func newUpgrades(t *testing.T) *upgrades {
	t.Helper()
	u := &upgrades{previous: previous.Run(t), front: operator.RunBalancer(t), binary: buildManager(t)}
	text, err := kustomize.Render(t.Context(), os.Stderr,
		kustomize.Overlay{Image: "registry.example.com/countersign/countersign:next"})
	must(t, err)
	u.manifests = filepath.Join(t.TempDir(), "install.yaml")
	must(t, os.WriteFile(u.manifests, text, 0o600))
	b := newBedWith(t, kubeserver.Options{WithoutCRDs: true}, func(b *bed) *operator.Manager {
		u.restarts = restarts{all: t, bed: b}
		u.apply(t, u.previous.Manifests)
		u.start(t, u.previous.Manager)
		u.start(t, u.previous.Manager)
		return u.alive[0]
	})
	u.restarts = restarts{all: t, bed: b}
	u.signed, u.half = u.repository(t, "ci", "qa"), u.repository(t, "ci", "qa")
	u.sign(t, u.signed, "v1", 1, "ci", "qa")
	u.sign(t, u.half, "v1", 2, "ci")
	// The previous release's CRD accepts a selector that this version's CRD refuses.
	odd := u.policy("odd", registry+"/odd/**", "acme-notary", "ci")
	odd.Spec.NamespaceSelector = &v1alpha1.NamespaceSelector{
		MatchExpressions: []v1alpha1.NamespaceRequirement{{Key: "env", Operator: "Near"}},
	}
	u.create(t, odd)
	return u
}

// apply applies the manifests of a version with kubectl.
func (u *upgrades) apply(t *testing.T, manifests string) {
	t.Helper()
	out, err := u.kube.RunKubectl(t.Context(), "", "apply", "--filename="+manifests)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// start runs another replica. hadRights checks for missed rights.
func (u *upgrades) start(t *testing.T, binary string) {
	t.Helper()
	m := operator.RunWith(u.all, u.kube, operator.Options{
		Binary: binary, Args: []string{"--webhook-url=" + u.front.URL, "--shutdown-delay=" + shutdownDelay.String()},
		MayMissRights: true, // a replica of this version may, after the downgrade removes its rights
	})
	u.front.Add(m)
	u.alive = append(u.alive, m)
}

// roll replaces every replica with one of another version, one after the other. Meanwhile both
// versions serve requests.
func (u *upgrades) roll(t *testing.T, binary string) {
	t.Helper()
	for range len(u.alive) {
		u.start(t, binary)
		u.load.more(t)
		must(t, u.alive[0].Stop())
		u.alive = u.alive[1:]
		u.load.more(t)
	}
}

// hadRights checks that no running replica was denied a request for lack of a right.
func (u *upgrades) hadRights(t *testing.T) {
	t.Helper()
	for _, m := range u.alive {
		log, err := os.ReadFile(m.Log())
		must(t, err)
		if i := bytes.Index(log, []byte("is forbidden: User")); i >= 0 {
			t.Errorf("its manifests lack a right: %.300s", log[i:])
		}
	}
}

// decides checks verdicts, and that the status is updated after an edit. One of the policies has a
// spec that this version's CRD would refuse.
func (u *upgrades) decides(t *testing.T) {
	t.Helper()
	u.admitted(t, pod(production, u.signed+":v1"))
	u.denied(t, pod(production, u.half+":v1"), http.StatusForbidden, `role "qa" has not signed`)
	u.denied(t, pod(production, u.signed+":unsigned"), http.StatusForbidden)
	u.denied(t, pod("sandbox", registry+"/odd/app:v1"), http.StatusServiceUnavailable, `ImagePolicy "odd"`,
		"spec.namespaceSelector")

	u.edits++
	u.editRoot(t, func(root *v1alpha1.TrustRoot) { root.Spec.RefreshInterval.Duration++ })
	for name, want := range map[string]struct {
		status metav1.ConditionStatus
		reason string
	}{
		"production": {metav1.ConditionTrue, v1alpha1.ReasonInForce},
		"odd":        {metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec},
	} {
		p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		u.update(t, p, func() {
			p.Spec.ExceptImages = []v1alpha1.ImagePattern{
				v1alpha1.ImagePattern(fmt.Sprintf("%s/none/app-%d", registry, u.edits)),
			}
		})
		u.ready(t, p, name, want.status, want.reason)
	}
	u.ready(t, &v1alpha1.TrustRoot{}, "acme-notary", metav1.ConditionTrue, v1alpha1.ReasonPinned)
}

// state returns the current state, without the fields that decides edits.
func (u *upgrades) state(t *testing.T) (k kept) {
	t.Helper()
	var (
		secret     corev1.Secret
		validating admissionv1.ValidatingWebhookConfiguration
		mutating   admissionv1.MutatingWebhookConfiguration
		root       v1alpha1.TrustRoot
		policy     v1alpha1.ImagePolicy
	)
	must(t, errors.Join(
		u.Get(t.Context(), client.ObjectKey{Namespace: operator.Namespace, Name: certs.SecretName}, &secret),
		u.Get(t.Context(), client.ObjectKey{Name: "countersign"}, &validating),
		u.Get(t.Context(), client.ObjectKey{Name: "countersign"}, &mutating),
		u.Get(t.Context(), client.ObjectKey{Name: "acme-notary"}, &root),
		u.Get(t.Context(), client.ObjectKey{Name: "production"}, &policy),
	))
	record, err := u.record(t.Context(), u.signed)
	must(t, err)
	root.Spec.RefreshInterval, policy.Spec.ExceptImages = metav1.Duration{}, nil
	return kept{
		Certificate: secret.Data, Webhooks: [2]types.UID{validating.UID, mutating.UID},
		Root: root.Spec, Policy: policy.Spec, Record: record.Annotations["countersign.dev/digest"],
	}
}

// unchanged checks that the state is the same as at first.
func (u *upgrades) unchanged(t *testing.T) {
	t.Helper()
	if diff := cmp.Diff(u.kept, u.state(t)); diff != "" {
		t.Errorf("the state has changed (-before +now):\n%s", diff)
	}
}

func (u *upgrades) testUpgrade(t *testing.T) {
	u.load.more(t)
	u.apply(t, u.manifests)
	u.load.more(t) // the previous release, with this version's CRDs
	u.roll(t, u.binary)
	u.decides(t)
	u.hadRights(t)
	u.unchanged(t)

	p := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "production"}}
	u.update(t, p, func() { p.Spec.Help = "Ask #qa." })
	poll.Await(t, "a denial with the new field's text", func() error {
		err := u.Create(t.Context(), pod(production, u.half+":v1"))
		if err == nil {
			t.Fatal("admitted, want a denial")
		}
		if !strings.Contains(err.Error(), "Ask #qa.") {
			return err
		}
		return nil
	})
}

// testDowngrade leaves a field in the policy that the previous release does not know. The policy is
// no weaker without it.
func (u *upgrades) testDowngrade(t *testing.T) {
	u.apply(t, u.previous.Manifests)
	u.load.more(t) // this version, with the CRDs of the previous release
	u.roll(t, u.previous.Manager)
	u.decides(t)
	u.hadRights(t)
	u.unchanged(t)
}

// testRecordsOfThePrevious upgrades while the signing server is down. The new version must decide
// by the records of the previous release.
func (u *upgrades) testRecordsOfThePrevious(t *testing.T) {
	gun := u.repository(t, "ci", "qa")
	u.sign(t, gun, "v1", 3, "ci", "qa")
	u.admitted(t, pod(production, gun+":v1"))
	u.written(t, gun, nil)
	var stopped errgroup.Group
	for _, m := range u.alive {
		stopped.Go(m.Stop)
	}
	must(t, stopped.Wait())
	u.alive = nil
	u.notary.Disconnect()
	u.apply(t, u.manifests)
	u.start(t, u.binary)

	u.admitted(t, pod(production, gun+":v1"))
	u.admitted(t, pod(production, u.signed+":v1"))
	u.denied(t, pod(production, gun+":unsigned"), http.StatusServiceUnavailable, `role "qa" has not signed`)
	u.denied(t, pod(production, u.half+":v1"), http.StatusServiceUnavailable, `role "qa" has not signed`,
		"could not be asked for newer signatures")
	u.denied(t, pod(production, registry+"/acme/never-seen:v1"), http.StatusServiceUnavailable,
		`TrustRoot "acme-notary"`)
	u.hadRights(t)
}
