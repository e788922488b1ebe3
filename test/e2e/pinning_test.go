package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	admissionreviewv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

func (b *bed) testPinning(t *testing.T) {
	t.Run("swapped by another webhook", b.testSwapped)
	t.Run("none", b.testPinNone)
	t.Run("all", b.testPinAll)
	t.Run("all, in a Deployment from before", b.testPinAllLater)
	t.Run("all, over an unsigned digest", b.testUnsignedPin)
	t.Run("all, in a Job", b.testPinnedJob)
	t.Run("applied by the server", b.testAppliedByServer)
	t.Run("applied by the client", b.testAppliedByClient)
}

// swapper is a mutating webhook that replaces the image of Pods whose image is of one repository
// and has no digest.
type swapper struct {
	repository, image string
	calls             atomic.Int32
}

func (s *swapper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionreviewv1.AdmissionReview
	var pod corev1.Pod
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil ||
		json.Unmarshal(review.Request.Object.Raw, &pod) != nil {
		http.Error(w, "not a review of a Pod", http.StatusBadRequest)
		return
	}
	answer := &admissionreviewv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if strings.HasPrefix(pod.Spec.Containers[0].Image, s.repository+":") {
		s.calls.Add(1)
		patch := admissionreviewv1.PatchTypeJSONPatch
		answer.PatchType, answer.Patch = &patch, fmt.Appendf(nil,
			`[{"op":"replace","path":"/spec/containers/0/image","value":%q}]`, s.image)
	}
	review.Request, review.Response = nil, answer
	_ = json.NewEncoder(w).Encode(review)
}

// swap makes the API server call the swapper after our webhook until the test ends: the name of its
// configuration sorts after ours.
func (b *bed) swap(t *testing.T, policy admissionv1.ReinvocationPolicyType, s *swapper) {
	t.Helper()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	path, none, ignore := server.URL, admissionv1.SideEffectClassNone, admissionv1.Ignore
	configuration := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "later-" + strings.ToLower(string(policy))},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "swap.example.com", SideEffects: &none, FailurePolicy: &ignore, ReinvocationPolicy: &policy,
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionv1.WebhookClientConfig{
				URL:      &path,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
				},
			}},
		}},
	}
	b.create(t, configuration)
	t.Cleanup(func() { must(t, b.Delete(context.WithoutCancel(t.Context()), configuration)) })
	poll.Await(t, "the other webhook to be called", func() error {
		_ = b.Create(t.Context(), pod(production, s.repository+":v1"), client.DryRunAll)
		if s.calls.Load() == 0 {
			return errors.New("not called yet")
		}
		return nil
	})
}

// testSwapped runs another webhook that replaces the pinned image with the tag, or with an unsigned
// image.
func (b *bed) testSwapped(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	b.admitted(t, pod(production, gun+":v1"))
	cases := map[string]struct {
		policy admissionv1.ReinvocationPolicyType
		image  string
		calls  int32
		code   int32 // 0: admitted, and pinned
		text   string
	}{
		"the tag, once": {admissionv1.NeverReinvocationPolicy, gun + ":v1", 1, 0, ""},
		"an unsigned, once": {
			admissionv1.NeverReinvocationPolicy, gun + ":unsigned", 1, http.StatusForbidden, gun + ":unsigned",
		},
		"the tag, each time": {
			admissionv1.IfNeededReinvocationPolicy, gun + ":v1", 2, http.StatusServiceUnavailable, "not pinned",
		},
		"an unsigned, and back": {
			admissionv1.IfNeededReinvocationPolicy, gun + ":unsigned", 1, http.StatusForbidden, gun + ":unsigned",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := &swapper{repository: gun, image: c.image}
			b.swap(t, c.policy, s)
			s.calls.Store(0)
			p := pod(production, gun+":v1")
			err := b.Create(t.Context(), p)
			if n := s.calls.Load(); n != c.calls {
				t.Errorf("the other webhook replaced the image %d times, want %d", n, c.calls)
			}
			if c.code != 0 {
				refused(t, err, c.code, c.text)
				return
			}
			must(t, err)
			if got, want := p.Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
				t.Errorf("got stored image %q, want %q", got, want)
			}
		})
	}
}

// warnings are the warnings that a client has received from the API server.
type warnings struct {
	mu    sync.Mutex
	lines []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, text)
}

// drain returns the warnings since the last call.
func (w *warnings) drain() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.lines
	w.lines = nil
	return lines
}

// withWarnings returns a client, and the warnings that it receives.
func (b *bed) withWarnings(t *testing.T) (client.Client, *warnings) {
	t.Helper()
	warned, config := &warnings{}, rest.CopyConfig(b.kube.Config)
	config.WarningHandler = warned
	c, err := client.New(config, client.Options{Scheme: b.Scheme()})
	must(t, err)
	return c, warned
}

// pinning makes a repository, signs its tag v1, and returns a policy with pinDigests for it. It
// does not create the policy.
func (b *bed) pinning(t *testing.T, name string, pin v1alpha1.PinDigests) (gun, digest string,
	policy *v1alpha1.ImagePolicy) {
	t.Helper()
	gun = registry + "/pinning/" + name
	_, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	policy = b.policy("pinning-"+name, gun, "acme-notary", "ci", "qa")
	policy.Spec.PinDigests = pin
	return gun, b.sign(t, gun, "v1", 1, "ci", "qa"), policy
}

// enforce creates a policy, waits until the manager decides by it, and deletes it when the test
// ends.
func (b *bed) enforce(t *testing.T, policy *v1alpha1.ImagePolicy) {
	t.Helper()
	b.create(t, policy)
	t.Cleanup(func() { must(t, b.Delete(context.WithoutCancel(t.Context()), policy)) })
	b.ready(t, &v1alpha1.ImagePolicy{}, policy.Name, metav1.ConditionTrue, v1alpha1.ReasonInForce)
	b.fetchNow(t, string(policy.Spec.Images[0]))
}

func (b *bed) testPinNone(t *testing.T) {
	gun, digest, policy := b.pinning(t, "none", v1alpha1.PinNone)
	b.enforce(t, policy)
	c, warned := b.withWarnings(t)
	want := fmt.Sprintf(
		"image %q: verified as %s... and not pinned to it (pinDigests: None): the node asks the registry again what "+
			"the tag means", gun+":v1", digest[:15])
	p := pod(production, gun+":v1")
	must(t, c.Create(t.Context(), p))
	if got := p.Spec.Containers[0].Image; got != gun+":v1" {
		t.Errorf("got stored image %q, want the tag", got)
	}
	if got := warned.drain(); !slices.Equal(got, []string{want}) {
		t.Errorf("a Pod: got warnings %q, want %q", got, want)
	}
	d := workloads(gun + ":v1")["Deployment"]
	must(t, c.Create(t.Context(), d))
	if got := warned.drain(); !slices.Equal(got, []string{want}) {
		t.Errorf("a Deployment: got warnings %q, want %q", got, want)
	}
	must(t, c.Create(t.Context(), pod(production, gun+"@"+digest)))
	if got := warned.drain(); len(got) > 0 {
		t.Errorf("by digest: got warnings %q, want none", got)
	}
	b.denied(t, pod(production, gun+":v2"), http.StatusForbidden, `role "qa" has not signed`)
}

// deployment returns a Deployment with one replica.
func deployment(name, image string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: production, Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}},
			},
		},
	}
}

// replicaSets waits until a Deployment has the wanted number of ReplicaSets and one updated Pod. It
// returns the images of the ReplicaSets.
func (b *bed) replicaSets(t *testing.T, d *appsv1.Deployment, want int) []string {
	t.Helper()
	var images []string
	poll.Await(t, "the ReplicaSets of "+d.Name, func() error {
		sets := &appsv1.ReplicaSetList{}
		if err := errors.Join(
			b.Get(t.Context(), client.ObjectKeyFromObject(d), d),
			b.List(t.Context(), sets, client.InNamespace(production), client.MatchingLabels{"app": d.Name}),
		); err != nil {
			return err
		}
		if d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedReplicas != 1 || len(sets.Items) != want {
			return fmt.Errorf("got %d ReplicaSets, want %d; status %+v", len(sets.Items), want, d.Status)
		}
		images = nil
		for _, rs := range sets.Items {
			images = append(images, rs.Spec.Template.Spec.Containers[0].Image)
		}
		return nil
	})
	if d.Status.CollisionCount != nil {
		t.Errorf("got collision count %d, want none: the controller did not recognise its own ReplicaSet",
			*d.Status.CollisionCount)
	}
	return images
}

// testPinAll checks that a template is pinned, and that the controller makes one ReplicaSet of it.
func (b *bed) testPinAll(t *testing.T) {
	gun, digest, policy := b.pinning(t, "all", v1alpha1.PinAll)
	b.enforce(t, policy)
	pinned := gun + ":v1@" + digest
	d := deployment("pinned-all", gun+":v1")
	b.admitted(t, d)
	if got := d.Spec.Template.Spec.Containers[0].Image; got != pinned {
		t.Errorf("got the template's image %q, want %q", got, pinned)
	}
	if got := b.replicaSets(t, d, 1); !slices.Equal(got, []string{pinned}) {
		t.Errorf("got the ReplicaSets' images %q, want %q", got, pinned)
	}
	generation := d.Generation
	b.update(t, d, func() { d.Spec.Template.Spec.Containers[0].Image = gun + ":v1" })
	if d.Generation != generation || d.Spec.Template.Spec.Containers[0].Image != pinned {
		t.Errorf("updated with the tag: got generation %d and image %q, want %d and %q", d.Generation,
			d.Spec.Template.Spec.Containers[0].Image, generation, pinned)
	}
	b.replicaSets(t, d, 1)
}

// testPinAllLater creates a Deployment with a tag before the policy. Its ReplicaSets must keep the
// tag: the controller compares their templates with its own.
func (b *bed) testPinAllLater(t *testing.T) {
	gun, digest, policy := b.pinning(t, "later", v1alpha1.PinAll)
	d := deployment("pinned-later", gun+":v1")
	b.admitted(t, d)
	b.replicaSets(t, d, 1)
	b.enforce(t, policy)
	b.update(t, d, func() { d.Spec.Template.Annotations = map[string]string{"restarted": "yes"} })
	if got := b.replicaSets(t, d, 2); !slices.Equal(got, []string{gun + ":v1", gun + ":v1"}) {
		t.Errorf("got the ReplicaSets' images %q, want the tag in both", got)
	}
	poll.Await(t, "a pinned Pod", func() error {
		pods := &corev1.PodList{}
		if err := b.List(t.Context(), pods, client.InNamespace(production),
			client.MatchingLabels{"app": d.Name}); err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.Annotations["restarted"] == "yes" && p.Spec.Containers[0].Image == gun+":v1@"+digest {
				return nil
			}
		}
		return fmt.Errorf("got none among %d Pods", len(pods.Items))
	})
}

// manifest returns the manifest of a Deployment and a Pod.
func manifest(t *testing.T, name, image string) string {
	t.Helper()
	p := pod(production, image)
	p.TypeMeta, p.GenerateName, p.Name = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, "", name
	var documents []string
	for _, o := range []client.Object{deployment(name, image), p} {
		raw, err := json.Marshal(o)
		must(t, err)
		documents = append(documents, string(raw))
	}
	return strings.Join(documents, "\n---\n")
}

// testAppliedByServer applies a Deployment and a Pod repeatedly on the server side, as GitOps tools
// do. Only the first apply may change them.
func (b *bed) testAppliedByServer(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	git := manifest(t, "applied", gun+":v1")
	objects := map[string]client.Object{gun + ":v1": &appsv1.Deployment{}, gun + ":v1@" + digest: &corev1.Pod{}}
	apply := func() string {
		out, err := b.kube.RunKubectl(t.Context(), git, "apply", "--server-side", "--field-manager=gitops", "-f", "-")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var versions []string
		for image, o := range objects {
			must(t, b.Get(t.Context(), client.ObjectKey{Namespace: production, Name: "applied"}, o))
			wantApplied(t, o, image)
			versions = append(versions,
				fmt.Sprintf("%T has generation %d and resourceVersion %s", o, o.GetGeneration(),
					o.GetResourceVersion()))
		}
		slices.Sort(versions)
		return strings.Join(versions, ", ")
	}
	apply()
	// The controller updates the Deployment's status at first. After that nothing may change.
	b.replicaSets(t, deployment("applied", ""), 1)
	poll.Await(t, "an apply that changes nothing", func() error {
		if before, after := apply(), apply(); before != after {
			return fmt.Errorf("%s; after a further apply, %s", before, after)
		}
		return nil
	})
	if d := objects[gun+":v1"]; d.GetGeneration() != 1 {
		t.Errorf("got generation %d of the Deployment, want 1", d.GetGeneration())
	}
}

// wantApplied checks the stored image of an object, and that only the applier owns the field.
func wantApplied(t *testing.T, o client.Object, image string) {
	t.Helper()
	raw, err := json.Marshal(o)
	must(t, err)
	if !strings.Contains(string(raw), fmt.Sprintf(`"image":%q`, image)) {
		t.Errorf("%T: got %s, want image %q", o, raw, image)
	}
	owned := false
	for _, f := range o.GetManagedFields() {
		if !strings.Contains(f.FieldsV1.GetRawString(), `"f:image":`) {
			continue
		}
		if f.Manager != "gitops" || f.Operation != metav1.ManagedFieldsOperationApply {
			t.Errorf("%T: %s (%s) owns the image, want only gitops (Apply)", o, f.Manager, f.Operation)
		}
		owned = true
	}
	if !owned {
		t.Errorf("%T: got no owner of the image, want gitops: %v", o, o.GetManagedFields())
	}
}

// testAppliedByClient checks that kubectl sees no drift after an apply on the client side.
func (b *bed) testAppliedByClient(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	b.sign(t, gun, "v1", 1, "ci", "qa")
	raw, err := json.Marshal(deployment("applied-by-client", gun+":v1"))
	must(t, err)
	for _, want := range []string{"created", "unchanged"} {
		out, err := b.kube.RunKubectl(t.Context(), string(raw), "apply", "-f", "-")
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("got %v and output\n%s\nwant %q", err, out, want)
		}
		// A diff reads the object twice. A status update of the controller in between looks like
		// drift, and a retry ends it. Drift that our webhook causes would stay.
		poll.Await(t, "kubectl to see no drift", func() error {
			out, err := b.kube.RunKubectl(t.Context(), string(raw), "diff", "-f", "-")
			if err == nil && out != "" {
				err = errors.New("there is a difference")
			}
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
	}
	drifted := strings.ReplaceAll(string(raw), gun+":v1", gun+":v1-moved")
	if out, err := b.kube.RunKubectl(t.Context(), drifted, "diff", "-f", "-"); err == nil {
		t.Errorf("got no drift from kubectl for another tag, want one:\n%s", out)
	}
}
