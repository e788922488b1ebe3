package gate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/controllers/publication"
	"github.com/countersign-dev/countersign/controllers/requests"
	"github.com/countersign-dev/countersign/controllers/running"
	"github.com/countersign-dev/countersign/controllers/status"
	"github.com/countersign-dev/countersign/internal/flags"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/controlplane"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// gateBed is an API server with a policy of each mode, and the two reconcilers of a leader, which
// the tests call.
type gateBed struct {
	*controlplane.Plane
	clock          *clocktesting.FakeClock
	events         *events.FakeRecorder
	configurations *Reconciler
	policies       *publication.ImagePolicyReconciler
}

// authority returns a given CA bundle or error.
type authority struct {
	bundle string
	err    error
}

func (a *authority) CABundle(context.Context, ...[]byte) ([]byte, time.Duration, error) {
	return []byte(a.bundle), time.Hour, a.err
}

func newGateBed(t *testing.T) *gateBed {
	t.Helper()
	b := &gateBed{Plane: controlplane.Run(t,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operator.Namespace}})}
	for _, mode := range []v1alpha1.PolicyMode{v1alpha1.ModeEnforce, v1alpha1.ModeWarn, v1alpha1.ModeAudit} {
		b.Make(t, b.policy(mode))
	}
	b.restart(t, &authority{bundle: "first"})
	return b
}

// restart makes new reconcilers, as a new leader does. The store is primed.
func (b *gateBed) restart(t *testing.T, certificate CertificateAuthority) {
	t.Helper()
	elected := make(chan struct{})
	close(elected)
	b.events, b.clock = events.NewFakeRecorder(1000), clocktesting.NewFakeClock(time.Now())
	decisions := store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO})
	gate := &Observation{}
	decisions.MarkPrimed()
	b.policies = &publication.ImagePolicyReconciler{
		Client: b, Store: decisions, Compliance: &running.Compliance{}, Gate: gate,
		Status: status.Writer{Client: b, Events: b.events, Elected: elected},
	}
	b.configurations = &Reconciler{
		Client: b, Live: b, Store: decisions, Namespace: operator.Namespace, URL: "https://127.0.0.1:9443",
		Certificate: certificate, Observation: gate,
		Exempt: flags.Exempt{Names: []string{"kube-system", "platform"}}, MutatePath: "/mutate",
		ValidatePath: "/validate", Clock: b.clock,
		Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule: admissionv1.Rule{
				APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				Scope: new(admissionv1.NamespacedScope),
			}}},
	}
}

func (b *gateBed) delete(t *testing.T, all ...client.Object) {
	t.Helper()
	for _, o := range all {
		if err := b.Delete(t.Context(), o); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
}

func (*gateBed) policy(mode v1alpha1.PolicyMode) *v1alpha1.ImagePolicy {
	return &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(string(mode))},
		Spec: v1alpha1.ImagePolicySpec{
			Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, AllowUnsigned: new(true), Mode: mode,
		},
	}
}

func owner() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: OwnerName}}
}

// endpoints returns an EndpointSlice of a Service with one endpoint.
func endpoints(service string, ready *bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: operator.Namespace, GenerateName: service + "-",
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ready}},
		},
	}
}

// reconcile reconciles the configurations, and returns when that is due again.
func (b *gateBed) reconcile(t *testing.T) time.Duration {
	t.Helper()
	result, err := b.configurations.Reconcile(t.Context(), ctrl.Request{})
	if err != nil {
		t.Fatal(err)
	}
	return result.RequeueAfter
}

// wants reconciles every policy and checks its conditions Gated and Ready, which must agree.
func (b *gateBed) wants(t *testing.T, status metav1.ConditionStatus, reason, message string) {
	t.Helper()
	list := &v1alpha1.ImagePolicyList{}
	if err := b.List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if _, err := b.policies.Reconcile(t.Context(), requests.For(p.Name)); err != nil {
			t.Fatal(err)
		}
		if err := b.Get(t.Context(), client.ObjectKeyFromObject(&p), &p); err != nil {
			t.Fatal(err)
		}
		gated, ready := meta.FindStatusCondition(p.Status.Conditions,
			v1alpha1.ConditionGated), meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
		if gated == nil || gated.Status != status || gated.Reason != reason ||
			!strings.Contains(gated.Message, message) || gated.ObservedGeneration != p.Generation {
			t.Errorf("%s: Gated is %+v, want %s, %s, %q", p.Name, gated, status, reason, message)
		}
		want := metav1.Condition{Status: status, Reason: reason}
		if status == metav1.ConditionTrue {
			want.Reason = v1alpha1.ReasonInForce
		}
		if ready == nil || ready.Status != want.Status || ready.Reason != want.Reason {
			t.Errorf("%s: Ready is %+v, want %s, %s", p.Name, ready, want.Status, want.Reason)
		}
	}
}

// told returns how many events of a reason were recorded since the last call, and drops all others.
func (b *gateBed) told(reason string) int {
	told := 0
	for {
		select {
		case e := <-b.events.Events:
			if strings.Contains(e, " "+reason+" ") {
				told++
			}
		default:
			return told
		}
	}
}

func (b *gateBed) validating(t *testing.T) *admissionv1.ValidatingWebhookConfiguration {
	t.Helper()
	c := &admissionv1.ValidatingWebhookConfiguration{}
	if err := b.Get(t.Context(), client.ObjectKey{Name: ConfigurationName}, c); err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *gateBed) mutating(t *testing.T) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	c := &admissionv1.MutatingWebhookConfiguration{}
	if err := b.Get(t.Context(), client.ObjectKey{Name: ConfigurationName}, c); err != nil {
		t.Fatal(err)
	}
	return c
}

func both() []client.Object {
	named := metav1.ObjectMeta{Name: ConfigurationName}
	return []client.Object{
		&admissionv1.MutatingWebhookConfiguration{ObjectMeta: named},
		&admissionv1.ValidatingWebhookConfiguration{ObjectMeta: named},
	}
}

// TestThreatAbsentGateIsSaid removes each dependency of the gate. Every policy must report that,
// whatever its mode, and be Ready again once the gate is back.
func TestThreatAbsentGateIsSaid(t *testing.T) {
	b := newGateBed(t)
	t.Run("nothing seen yet", b.testNotObserved)
	t.Run("no owner, and none of the configurations", b.testNoOwner)
	t.Run("no owner, and the configurations still stand", b.testOwnerGone)
	t.Run("a new leader", b.testNewLeader)
	t.Run("no certificate", b.testNoCertificate)
	t.Run("not loaded", b.testNotLoaded)
	t.Run("writes refused", b.testRefused)
	t.Run("a fault of its own", b.testOwnFault)
}

func (b *gateBed) testNotObserved(t *testing.T) {
	b.wants(t, metav1.ConditionUnknown, v1alpha1.ReasonGateNotObserved, "")
	if told := b.told(v1alpha1.ReasonGateNotObserved); told > 0 {
		t.Errorf("%d events, want none before the first observation", told)
	}
}

func (b *gateBed) testNoOwner(t *testing.T) {
	if again := b.reconcile(t); again != ownerInterval {
		t.Errorf("due again in %s, want %s", again, ownerInterval)
	}
	const message = "nothing is checked at admission: ValidatingWebhookConfiguration countersign is missing; " +
		"MutatingWebhookConfiguration countersign is missing; ClusterRole countersign-webhook-owner, which owns the " +
		"webhook configurations, does not exist"
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing, message)
	b.reconcile(t)
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing, message)
	if told := b.told(v1alpha1.ReasonWebhookOwnerMissing); told != 3 {
		t.Errorf("%d events for three policies, want 3", told)
	}
	late := b.policy(v1alpha1.ModeEnforce)
	late.Name = "late"
	b.Make(t, late)
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing, message)
	if told := b.told(v1alpha1.ReasonWebhookOwnerMissing); told != 1 {
		t.Errorf("%d events for a policy that was created without a gate, want 1", told)
	}
	b.Make(t, owner())
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	if told := b.told(v1alpha1.ReasonConfigurationsInPlace); told != 4 {
		t.Errorf("%d events for four policies, want 4", told)
	}
}

// testOwnerGone has no garbage collector. A manipulated configuration is restored, and a deleted
// one is not created.
func (b *gateBed) testOwnerGone(t *testing.T) {
	b.delete(t, owner())
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonWebhookOwnerMissing, "the garbage collector deletes them")
	if told := b.told(v1alpha1.ReasonWebhookOwnerMissing); told != 4 {
		t.Errorf("%d events for four policies, want 4", told)
	}
	open := b.validating(t)
	open.Webhooks[0].FailurePolicy = new(admissionv1.Ignore)
	if err := b.Update(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	b.reconcile(t)
	if got := b.validating(t); *got.Webhooks[0].FailurePolicy != admissionv1.Fail || len(got.OwnerReferences) != 1 {
		t.Errorf("without its owner it is left with %s and %v", *got.Webhooks[0].FailurePolicy, got.OwnerReferences)
	}
	b.delete(t, b.validating(t))
	b.reconcile(t)
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing,
		"nothing is checked at admission: ValidatingWebhookConfiguration countersign is missing; ClusterRole")

	b.Make(t, owner()) // with another UID
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	role := owner()
	if err := b.Get(t.Context(), client.ObjectKeyFromObject(role), role); err != nil {
		t.Fatal(err)
	}
	for _, owners := range [][]metav1.OwnerReference{b.validating(t).OwnerReferences, b.mutating(t).OwnerReferences} {
		if len(owners) != 1 || owners[0].UID != role.UID {
			t.Errorf("the owners are %v, want the new ClusterRole", owners)
		}
	}
}

// testNewLeader tests that nothing changes before the first observation of a new leader, and that
// it records no event.
func (b *gateBed) testNewLeader(t *testing.T) {
	certificate := b.configurations.Certificate
	b.restart(t, certificate)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	select {
	case e := <-b.events.Events:
		t.Errorf("event %q, want none", e)
	default:
	}
	b.delete(t, append(both(), owner())...)
	b.reconcile(t)
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing, "")
	b.restart(t, certificate)
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonWebhookOwnerMissing, "")
	b.Make(t, owner())
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
}

func (b *gateBed) testNoCertificate(t *testing.T) {
	b.restart(t, &authority{err: errors.New("no Secret today")})
	b.reconcileFails(t, "no Secret today")
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
	b.delete(t, both()...)
	b.reconcileFails(t, "no Secret today")
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonCertificateUnavailable, "nothing is checked at admission")
	b.restart(t, &authority{bundle: "first"})
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
}

func (b *gateBed) reconcileFails(t *testing.T, want string) {
	t.Helper()
	if _, err := b.configurations.Reconcile(t.Context(), ctrl.Request{}); err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want %q", err, want)
	}
}

// testNotLoaded tests that no configuration is created before the policies are loaded, and that an
// existing one is restored all the same.
func (b *gateBed) testNotLoaded(t *testing.T) {
	b.restart(t, b.configurations.Certificate)
	b.configurations.Store = store.New(store.Options{
		Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO,
	})
	b.delete(t, b.mutating(t))
	open := b.validating(t)
	open.Webhooks[0].ObjectSelector.MatchLabels = map[string]string{"checked": "yes"}
	if err := b.Update(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	if again := b.reconcile(t); again != primedInterval {
		t.Errorf("due again in %s, want %s", again, primedInterval)
	}
	if got := b.validating(t).Webhooks[0].ObjectSelector; len(got.MatchLabels) > 0 {
		t.Errorf("the selector is left as %v", got)
	}
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonPoliciesNotLoaded,
		"tags may not be pinned to digests: MutatingWebhookConfiguration countersign is missing")
	b.restart(t, b.configurations.Certificate)
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
}

// testRefused revokes the right to write one of the configurations. The other one must be restored,
// and the condition must name the first.
func (b *gateBed) testRefused(t *testing.T) {
	const user = "limited"
	rule := func(verbs []string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{
			APIGroups: []string{"admissionregistration.k8s.io"}, Resources: resources, Verbs: verbs,
		}
	}
	b.Make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: []rbacv1.PolicyRule{
		rule([]string{"get"}, "mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
		rule([]string{"create", "update"}, "validatingwebhookconfigurations"),
	}})
	b.Make(t, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
	as := rest.CopyConfig(b.Kube.Config)
	as.Impersonate.UserName = user
	limited, err := client.New(as, client.Options{Scheme: b.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	poll.AwaitTrue(t, "the rights of "+user, func() bool {
		return limited.Get(t.Context(), client.ObjectKey{Name: ConfigurationName}, both()[0]) == nil
	})
	b.configurations.Client = limited
	mutating, validating := b.mutating(t), b.validating(t)
	mutating.Webhooks[0].FailurePolicy, validating.Webhooks[0].FailurePolicy = new(admissionv1.Ignore), new(
		admissionv1.Ignore)
	if err := errors.Join(b.Update(t.Context(), mutating), b.Update(t.Context(), validating)); err != nil {
		t.Fatal(err)
	}
	b.reconcileFails(t, "applying the mutating webhook configuration")
	if got := *b.validating(t).Webhooks[0].FailurePolicy; got != admissionv1.Fail {
		t.Errorf("the validating configuration is left with %s where the mutating one cannot be written", got)
	}
	b.wants(t, metav1.ConditionFalse, v1alpha1.ReasonConfigurationRefused,
		"webhooks[0].failurePolicy of MutatingWebhookConfiguration countersign")
	b.configurations.Client = b
	b.reconcile(t)
	b.wants(t, metav1.ConditionTrue, v1alpha1.ReasonConfigurationsInPlace, "")
}

// testOwnFault tests that a policy that denies its scope does not claim so while the webhook is not
// called.
func (b *gateBed) testOwnFault(t *testing.T) {
	faulty := &v1alpha1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Name: "faulty"}, Spec: v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"missing"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
	}}
	b.Make(t, faulty)
	message := func() string {
		if _, err := b.policies.Reconcile(t.Context(), requests.For(faulty.Name)); err != nil {
			t.Fatal(err)
		}
		if err := b.Get(t.Context(), client.ObjectKeyFromObject(faulty), faulty); err != nil {
			t.Fatal(err)
		}
		ready := meta.FindStatusCondition(faulty.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != v1alpha1.ReasonTrustRootNotFound {
			t.Fatalf("Ready is %+v", ready)
		}
		return ready.Message
	}
	if got := message(); !strings.Contains(got, "is denied") {
		t.Errorf("the message is %q", got)
	}
	b.delete(t, append(both(), owner())...)
	b.reconcile(t)
	b.told("")
	if got := message(); strings.Contains(got, "is denied") ||
		!strings.Contains(got, "nothing is checked at admission") {
		t.Errorf("the message is %q", got)
	}
	if told := b.told(v1alpha1.ReasonWebhookOwnerMissing); told != 1 {
		t.Errorf("%d events about the gate, want 1", told)
	}
}
