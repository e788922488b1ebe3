// Package e2e runs the built manager against a real control plane and a real Notary server. It
// observes the manager as users do: through the API server.
package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const (
	production = "shop"
	registry   = "registry.example.com"
	// soon bounds what takes a second on an idle machine. It is shorter than the refresh interval
	// of the bed's trust root, so that no periodic refresh explains what a test has observed.
	soon = 20 * time.Second
)

// bed is a cluster with a manager, one Notary server, and a policy that requires ci and qa in
// namespaces with the label env=production.
type bed struct {
	client.Client
	kube    *kubeserver.Server
	notary  *notaryserver.Server
	signer  *notaryserver.Client
	manager *operator.Manager
	pin     notaryserver.RootPin
	images  int
}

// newBed starts the servers, and the manager with the given flags in addition to the usual ones.
func newBed(t *testing.T, args ...string) *bed {
	t.Helper()
	return newBedAfter(t, func(*bed) {}, args...)
}

// newBedAfter is newBed, but calls first before it starts the manager and creates a policy.
func newBedAfter(t *testing.T, first func(*bed), args ...string) *bed {
	t.Helper()
	return newBedWith(t, kubeserver.Options{}, func(b *bed) *operator.Manager {
		first(b)
		return operator.Run(t, b.kube, args...)
	})
}

// newBedWith is newBed with options of the control plane. The caller runs the manager, before
// newBedWith creates a policy.
func newBedWith(t *testing.T, options kubeserver.Options, run func(*bed) *operator.Manager) *bed {
	t.Helper()
	options.ControllerManager = true
	b := &bed{
		kube:   kubeserver.Run(t, options),
		notary: notaryserver.Run(t, notaryserver.Options{Signer: true}),
	}
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(b.kube.Config, client.Options{Scheme: scheme})
	must(t, err)
	b.Client = c
	b.signer = notaryserver.RunClient(t, b.notary)
	for name, env := range map[string]string{production: "production", "sandbox": "test"} {
		b.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"env": env}}})
	}
	for _, ns := range []string{production, "sandbox"} {
		b.serviceAccount(t, ns)
	}
	b.manager = run(b)
	b.pin, err = b.signer.Root(b.repository(t, "ci", "qa"))
	must(t, err)
	b.create(t, b.trustRoot("acme-notary"))
	b.create(t, b.policy("production", registry+"/acme/**", "acme-notary", "ci", "qa"))
	b.ready(t, &v1alpha1.TrustRoot{}, "acme-notary", metav1.ConditionTrue, v1alpha1.ReasonPinned)
	b.ready(t, &v1alpha1.ImagePolicy{}, "production", metav1.ConditionTrue, v1alpha1.ReasonInForce)
	return b
}

func (b *bed) trustRoot(name string) *v1alpha1.TrustRoot {
	return &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.TrustRootSpec{
			RefreshInterval: metav1.Duration{Duration: 30 * time.Second},
			Notary: &v1alpha1.NotarySpec{
				Server:   b.notary.URL,
				CABundle: v1alpha1.PEMBundle(b.notary.CA.PEM),
				Root:     v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(b.pin.KeyID)}},
			},
		},
	}
}

func (b *bed) policy(name, images, root string, roles ...v1alpha1.RoleName) *v1alpha1.ImagePolicy {
	p := &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.ImagePolicySpec{
			Images:     []v1alpha1.ImagePattern{v1alpha1.ImagePattern(images)},
			TrustRoots: []v1alpha1.ObjectName{v1alpha1.ObjectName(root)},
			NamespaceSelector: &v1alpha1.NamespaceSelector{
				MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
			},
		},
	}
	for _, role := range roles {
		p.Spec.RequiredRoles = append(p.Spec.RequiredRoles, v1alpha1.RoleRequirement{Role: role})
	}
	return p
}

// repository makes a Notary repository with a delegation for each role, and returns its name.
func (b *bed) repository(t *testing.T, roles ...string) string {
	t.Helper()
	b.images++
	gun := fmt.Sprintf("%s/acme/app-%d", registry, b.images)
	_, err := b.signer.CreateRepository(t.Context(), gun, roles...)
	must(t, err)
	return gun
}

// sign signs a made-up digest for a tag as the given roles, and returns the digest. Each n has
// another digest.
func (b *bed) sign(t *testing.T, gun, tag string, n int, roles ...string) string {
	t.Helper()
	hex := fmt.Sprintf("%064x", 0xabc0000+n)
	var delegations []string
	for _, r := range roles {
		delegations = append(delegations, "targets/"+r)
	}
	must(t, b.signer.AddHash(t.Context(), gun, tag, 512, hex, delegations...))
	return "sha256:" + hex
}

func pod(namespace, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
}

// workloads returns one object of each kind with a pod template that has the image.
func workloads(image string) map[string]client.Object {
	labels := map[string]string{"app": "x"}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	object := func(kind string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: production, GenerateName: strings.ToLower(kind) + "-"}
	}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
	}
	once := *template.DeepCopy()
	once.Spec.RestartPolicy = corev1.RestartPolicyNever
	zero := int32(0)
	return map[string]client.Object{
		"Deployment": &appsv1.Deployment{
			ObjectMeta: object("Deployment"),
			Spec:       appsv1.DeploymentSpec{Replicas: &zero, Selector: selector, Template: template},
		},
		"ReplicaSet": &appsv1.ReplicaSet{
			ObjectMeta: object("ReplicaSet"),
			Spec:       appsv1.ReplicaSetSpec{Replicas: &zero, Selector: selector, Template: template},
		},
		"StatefulSet": &appsv1.StatefulSet{
			ObjectMeta: object("StatefulSet"),
			Spec:       appsv1.StatefulSetSpec{Replicas: &zero, Selector: selector, Template: template},
		},
		"DaemonSet": &appsv1.DaemonSet{
			ObjectMeta: object("DaemonSet"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template},
		},
		"Job": &batchv1.Job{
			ObjectMeta: object("Job"), Spec: batchv1.JobSpec{Suspend: new(true), Template: once},
		},
		"CronJob": &batchv1.CronJob{
			ObjectMeta: object("CronJob"),
			Spec: batchv1.CronJobSpec{
				Schedule: "@yearly", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}},
			},
		},
		"ReplicationController": &corev1.ReplicationController{
			ObjectMeta: object("ReplicationController"),
			Spec:       corev1.ReplicationControllerSpec{Replicas: &zero, Selector: labels, Template: &template},
		},
		"PodTemplate": &corev1.PodTemplate{ObjectMeta: object("PodTemplate"), Template: template},
	}
}

func (b *bed) create(t *testing.T, o client.Object) {
	t.Helper()
	must(t, b.Create(t.Context(), o))
}

// update reads an object, changes it and writes it back. It retries a conflict: another writer may
// have updated the status in between.
func (b *bed) update(t *testing.T, o client.Object, change func()) {
	t.Helper()
	var updated error
	poll.Await(t, "an update of "+o.GetName()+" without a conflict", func() error {
		if err := b.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		change()
		if updated = b.Update(t.Context(), o); apierrors.IsConflict(updated) {
			return updated
		}
		return nil
	})
	must(t, updated)
}

// editRoot changes the trust root of the bed.
func (b *bed) editRoot(t *testing.T, change func(*v1alpha1.TrustRoot)) {
	t.Helper()
	root := &v1alpha1.TrustRoot{ObjectMeta: metav1.ObjectMeta{Name: "acme-notary"}}
	b.update(t, root, func() { change(root) })
}

// admitted creates an object. Then o is the stored object.
func (b *bed) admitted(t *testing.T, o client.Object) {
	t.Helper()
	if err := b.Create(t.Context(), o); err != nil {
		t.Fatalf("got %v, want the object admitted", err)
	}
}

// denied tries to create an object, and checks that it is denied with a status code and a message
// that contains all texts.
func (b *bed) denied(t *testing.T, o client.Object, code int32, texts ...string) {
	t.Helper()
	refused(t, b.Create(t.Context(), o), code, texts...)
}

// awaitDenied polls until a Pod with an image is denied by a verdict, in a dry run.
func (b *bed) awaitDenied(t *testing.T, what, namespace, image string) {
	t.Helper()
	poll.Await(t, what, func() error {
		return verdictOn(b.Create(t.Context(), pod(namespace, image), client.DryRunAll))
	})
}

// awaitAdmitted polls until a Pod with an image is admitted, in a dry run.
func (b *bed) awaitAdmitted(t *testing.T, what, namespace, image string) {
	t.Helper()
	poll.Await(t, what, func() error {
		return b.Create(t.Context(), pod(namespace, image), client.DryRunAll)
	})
}

// fetchNow makes the manager fetch the signatures of a repository. Before it denies an image by a
// verdict, it fetches them once more, and so it knows everything that was signed before this call.
func (b *bed) fetchNow(t *testing.T, gun string) {
	t.Helper()
	b.awaitDenied(t, "a verdict on an unsigned image of "+gun, production, gun+":unsigned")
}

// verdictOn returns nil if the creation of a Pod was denied by a verdict, which has status 403.
func verdictOn(err error) error {
	switch {
	case err == nil:
		return errors.New("admitted, want a denial with status 403")
	case !apierrors.IsForbidden(err):
		return fmt.Errorf("got %w, want a denial with status 403", err)
	}
	return nil
}

// refused checks that err is a denial with a status code and a message that contains all texts.
func refused(t *testing.T, err error, code int32, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("admitted, want a denial with status %d", code)
	}
	status, ok := err.(apierrors.APIStatus)
	if !ok || status.Status().Code != code {
		t.Errorf("got %v, want a denial with status %d", err, code)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got denial %q, want it to contain %q", err, text)
		}
	}
}

// ready waits until the Ready condition of an object has a status and reason, and returns its
// message.
func (b *bed) ready(t *testing.T, o client.Object, name string, status metav1.ConditionStatus, reason string) string {
	t.Helper()
	return b.condition(t, o, name, v1alpha1.ConditionReady, status, reason)
}

// condition waits until a condition of an object has a status and reason for the newest generation,
// and returns its message.
func (b *bed) condition(t *testing.T, o client.Object, name, kind string, status metav1.ConditionStatus,
	reason string) string {
	t.Helper()
	var message string
	poll.Await(t, fmt.Sprintf("%s=%s of %s", kind, status, name), func() error {
		if err := b.Get(t.Context(), client.ObjectKey{Name: name}, o); err != nil {
			return err
		}
		var conditions []metav1.Condition
		switch o := o.(type) {
		case *v1alpha1.ImagePolicy:
			conditions = o.Status.Conditions
		case *v1alpha1.TrustRoot:
			conditions = o.Status.Conditions
		}
		c := meta.FindStatusCondition(conditions, kind)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != o.GetGeneration() {
			text, _ := json.Marshal(conditions)
			return fmt.Errorf("got the conditions %s, want reason %s", text, reason)
		}
		message = c.Message
		return nil
	})
	return message
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// events returns the events of all namespaces that match.
func (b *bed) events(ctx context.Context, match func(*eventsv1.Event) bool) ([]eventsv1.Event, error) {
	all := &eventsv1.EventList{}
	if err := b.List(ctx, all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Items, func(e eventsv1.Event) bool { return !match(&e) }), nil
}

// event waits for a warning event about a cluster-scoped object with a reason. Such events are in
// the namespace default.
func (b *bed) event(t *testing.T, kind, name, reason string) {
	t.Helper()
	poll.Await(t, "an event "+reason+" about "+name, func() error {
		found, err := b.events(t.Context(), func(e *eventsv1.Event) bool {
			return e.Namespace == metav1.NamespaceDefault && e.Regarding.Kind == kind && e.Regarding.Name == name &&
				e.Reason == reason && e.Type == corev1.EventTypeWarning
		})
		if err == nil && len(found) == 0 {
			err = errors.New("got no event")
		}
		return err
	})
}

// bundleOf returns the certificate of a test server as a CA bundle.
func bundleOf(s *httptest.Server) v1alpha1.PEMBundle {
	return v1alpha1.PEMBundle(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}
