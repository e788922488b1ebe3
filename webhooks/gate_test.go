package webhooks

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// In every kind, on create and update, an image passes only if both roles have signed it. It is
// pinned as the policy says.
func TestThreatEveryKindIsGated(t *testing.T) {
	cases := map[string]struct {
		image  string
		denied string // part of the message; empty for an admission
	}{
		"signed":   {signed, ""},
		"digest":   {repository + "@" + digestA, ""},
		"ci only":  {ciOnly, `role "qa" has not signed sha256:bbbbbbbb`},
		"unsigned": {unsigned, `role "ci" has not signed it`},
		"other":    {signed + "@" + digestB, `role "ci" has not signed sha256:bbbbbbbb`},
		"garbage":  {"registry.example.com/acme/App:v1", "cannot be read"},
		"empty":    {"", "empty"},
	}
	for _, pin := range []v1alpha1.PinDigests{v1alpha1.PinPods, v1alpha1.PinAll, v1alpha1.PinNone} {
		b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.PinDigests = pin }))
		for _, k := range kinds(t) {
			for name, c := range cases {
				for _, old := range []any{nil, object(k.Name, elsewhere)} {
					t.Run(fmt.Sprintf("%s/%s/%s/update=%t", pin, k.Name, name, old != nil), func(t *testing.T) {
						stored, got := b.admit(t, request{kind: k.Name, object: object(k.Name, c.image), old: old})
						if c.denied != "" {
							wantDenied(t, got, 403, c.denied)
							return
						}
						wantAdmitted(t, got)
						want := c.image
						if name == "signed" && (pin == v1alpha1.PinAll || pin == v1alpha1.PinPods && k.Name == "Pod") {
							want = pinned
						}
						wantImage(t, stored, want)
					})
				}
			}
		}
	}
}

// The full message of a denial has one line for each denied image, sorted, without repetition.
func TestDenialText(t *testing.T) {
	b := newBench(t)
	got := b.validate(t, request{
		kind: "Deployment", object: object("Deployment", unsigned, ciOnly, signed, ciOnly, elsewhere),
	})
	wantDenied(t, got, 403)
	want := `image "registry.example.com/acme/app:ci-only": ImagePolicy "policy-0": role "qa" has not signed sha256:bbbbbbbb...; signed by ci (TrustRoot "acme")
image "registry.example.com/acme/app:unsigned": ImagePolicy "policy-0": role "ci" has not signed it, role "qa" has not signed it; no signatures for this tag (TrustRoot "acme")`
	if got.Result.Message != want {
		t.Errorf("got\n%s\nwant\n%s", got.Result.Message, want)
	}
	if got.UID != "7" {
		t.Errorf("got the UID %q, want 7", got.UID)
	}
}

// A Pod must name the verified digest: a runtime would resolve the tag a second time.
func TestThreatTagIsNotReadTwice(t *testing.T) {
	b := newBench(t)
	got := b.validate(t, request{kind: "Pod", object: object("Pod", signed)})
	wantDenied(t, got, 503, "not pinned", pinned)
	wantAdmitted(t, b.validate(t, request{kind: "Pod", object: object("Pod", pinned)}))
	wantAdmitted(t, b.validate(t, request{kind: "Deployment", object: object("Deployment", signed)}))
}

func TestThreatUpdates(t *testing.T) {
	scaled := object("Deployment", unsigned).(*appsv1.Deployment)
	scaled.Spec.Replicas = ptr.To[int32](5)
	labelled := object("Deployment", unsigned)
	labelled.SetLabels(map[string]string{"tier": "web"})
	deleting := object("Deployment", unsigned)
	deleting.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
	ended := object("Deployment", elsewhere)
	ended.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
	cases := map[string]struct {
		object, old any
		denied      bool
	}{
		"scaled":                   {scaled, object("Deployment", unsigned), false},
		"labelled":                 {labelled, object("Deployment", unsigned), false},
		"being deleted, unchanged": {deleting, object("Deployment", unsigned), false},
		"being deleted, another":   {deleting, ended, true},
		"changed to unsigned":      {object("Deployment", unsigned), object("Deployment", signed), true},
		"changed from unsigned":    {object("Deployment", signed), object("Deployment", unsigned), false},
		"unsigned added":           {object("Deployment", signed, unsigned), object("Deployment", signed), true},
		"signed added to unsigned": {object("Deployment", unsigned, signed), object("Deployment", unsigned), false},
		"moved between containers": {
			object("Deployment", signed, unsigned), object("Deployment", unsigned, signed), true,
		},
		"an old object that cannot be parsed": {
			object("Deployment", unsigned), `{"spec":{"template":{"spec":{"containers":"x"}}}}`, true,
		},
		"an old object that is null": {object("Deployment", unsigned), `null`, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, got := newBench(t).admit(t, request{kind: "Deployment", object: c.object, old: c.old})
			if c.denied {
				wantDenied(t, got, 403, "has not signed")
				return
			}
			wantAdmitted(t, got)
		})
	}
}

// Nothing that an object says about itself exempts it.
func TestThreatNothingInTheObjectIsBelieved(t *testing.T) {
	cases := map[string]func(*appsv1.ReplicaSet){
		"zero replicas": func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr.To[int32](0) },
		"owner": func(rs *appsv1.ReplicaSet) {
			rs.OwnerReferences = []metav1.OwnerReference{
				{APIVersion: "apps/v1", Kind: "Deployment", Name: "acme", UID: "1", Controller: ptr.To(true)},
			}
		},
		"annotations": func(rs *appsv1.ReplicaSet) {
			rs.Annotations = map[string]string{
				"countersign.dev/verified": digestA, "kubernetes.io/config.mirror": "1",
				"kubernetes.io/config.source": "file",
			}
		},
		"labels": func(rs *appsv1.ReplicaSet) {
			rs.Labels = map[string]string{"countersign.dev/break-glass": "please"}
		},
		"deletion": func(rs *appsv1.ReplicaSet) { rs.DeletionTimestamp = &metav1.Time{Time: time.Now()} },
		"status":   func(rs *appsv1.ReplicaSet) { rs.Status.Replicas = 3 },
		"namespace": func(rs *appsv1.ReplicaSet) {
			rs.Namespace = "kube-system"
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			rs := object("ReplicaSet", ciOnly).(*appsv1.ReplicaSet)
			change(rs)
			_, got := b.admit(t, request{kind: "ReplicaSet", object: rs})
			wantDenied(t, got, 403, `role "qa"`)
			pod := object("Pod", ciOnly)
			pod.SetOwnerReferences(rs.OwnerReferences)
			pod.SetAnnotations(rs.Annotations)
			_, got = b.admit(t, request{kind: "Pod", object: pod})
			wantDenied(t, got, 403, `role "qa"`)
		})
	}
}

// Every list of a Pod is checked, and its subresource too.
func TestThreatEveryListIsGated(t *testing.T) {
	cases := map[string]func(*corev1.PodSpec){
		"init": func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "x", Image: ciOnly}} },
		"sidecar": func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{
				{Name: "x", Image: ciOnly, RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)},
			}
		},
		"ephemeral": func(s *corev1.PodSpec) {
			s.EphemeralContainers = []corev1.EphemeralContainer{
				{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "x", Image: ciOnly}},
			}
		},
		"volume": func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{
				{Name: "x", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: ciOnly}}},
			}
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			before, after := object("Pod", pinned).(*corev1.Pod), object("Pod", pinned).(*corev1.Pod)
			change(&after.Spec)
			_, got := b.admit(t, request{kind: "Pod", object: after})
			wantDenied(t, got, 403, `role "qa"`)
			_, got = b.admit(t, request{kind: "Pod", object: after, old: before})
			wantDenied(t, got, 403, `role "qa"`)
			_, got = b.admit(t, request{kind: "Pod", object: after, old: before, subresource: "ephemeralcontainers"})
			wantDenied(t, got, 403, `role "qa"`)

			good := strings.ReplaceAll(string(encode(t, after)), ciOnly, signed)
			stored, got := b.admit(t, request{kind: "Pod", object: good})
			wantAdmitted(t, got)
			if n := strings.Count(string(stored), pinned); n != 2 {
				t.Errorf("got %d pinned images, want 2: %s", n, stored)
			}
		})
	}
}

// A template that a controller created from its own is never rewritten: the controller would see a
// difference and create another object.
func TestOwnedTemplatesAreNotPinned(t *testing.T) {
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.PinDigests = v1alpha1.PinAll }))
	owned := []metav1.OwnerReference{
		{APIVersion: "apps/v1", Kind: "Deployment", Name: "acme", UID: "1", Controller: ptr.To(true)},
	}
	for kind, want := range map[string]string{"ReplicaSet": signed, "Job": signed, "Pod": pinned} {
		o := object(kind, signed)
		o.SetOwnerReferences(owned)
		stored, got := b.admit(t, request{kind: kind, object: o})
		wantAdmitted(t, got)
		wantImage(t, stored, want)
	}
}

// If an update replaces a pinned image by its tag, as an apply from Git does, the image is pinned
// to the same digest.
func TestPinIsStable(t *testing.T) {
	b := newBench(t)
	stored, got := b.admit(t, request{kind: "Pod", object: object("Pod", signed), old: object("Pod", pinned)})
	wantAdmitted(t, got)
	wantImage(t, stored, pinned)
	if mutated := b.send(t, MutatePath, request{kind: "Pod", object: stored}.review(t)); len(mutated.Patch) > 0 {
		t.Errorf("a pinned Pod: got the patch %s, want none", mutated.Patch)
	}
}

// Only the namespace of the request selects the policies, whatever the object says.
func TestThreatNamespaceLabelsDecide(t *testing.T) {
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{
			MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
		}
	}))
	pod := object("Pod", unsigned)
	pod.SetNamespace("lab")
	pod.SetLabels(map[string]string{"env": "lab"})
	wantDenied(t, b.validate(t, request{kind: "Pod", object: pod, namespace: "shop"}), 403)
	wantAdmitted(t, b.validate(t, request{kind: "Pod", object: pod, namespace: "lab"}))
}

// A namespace that is not in the cache is read live. A namespace that cannot be read never counts
// as one without labels.
func TestThreatUnknownNamespace(t *testing.T) {
	only := func(s *v1alpha1.ImagePolicySpec) {
		s.NamespaceSelector = &v1alpha1.NamespaceSelector{
			MatchLabels: map[string]v1alpha1.LabelValue{"env": "production"},
		}
	}
	live := namespaces{labels: map[string]map[string]string{"new": {"env": "production"}}}
	cases := map[string]struct {
		cached, live namespaces
		image        string
		code         int32
	}{
		"new, unsigned":         {namespaces{}, live, unsigned, 403},
		"new, signed":           {namespaces{}, live, pinned, 0},
		"nowhere":               {namespaces{}, namespaces{}, pinned, 503},
		"cache broken":          {namespaces{err: fmt.Errorf("no connection")}, live, pinned, 503},
		"API server not asked":  {namespaces{}, namespaces{err: fmt.Errorf("no connection")}, pinned, 503},
		"cached wins over live": {namespaces{labels: map[string]map[string]string{"new": {}}}, live, unsigned, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, requireBoth(only))
			b.Namespaces, b.LiveNamespaces = c.cached, c.live
			got := b.validate(t, request{kind: "Pod", object: object("Pod", c.image), namespace: "new"})
			if c.code == 0 {
				wantAdmitted(t, got)
				return
			}
			wantDenied(t, got, c.code)
			if c.code == 503 && !strings.Contains(got.Result.Message, `labels of namespace "new"`) {
				t.Errorf("got the message %q, want the namespace in it", got.Result.Message)
			}
		})
	}
}

// Validation denies a request that it cannot check. Mutation does not change it.
func TestThreatUnknownRequestsAreDenied(t *testing.T) {
	cases := map[string]struct {
		change func(*admissionv1.AdmissionRequest)
		want   string
	}{
		"deletion":     {func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Delete }, "DELETE"},
		"connection":   {func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Connect }, "CONNECT"},
		"no operation": {func(r *admissionv1.AdmissionRequest) { r.Operation = "" }, "operation"},
		"another kind": {func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "services" }, "services"},
		"another group": {
			func(r *admissionv1.AdmissionRequest) { r.Resource.Group = "example.com" }, "pods.example.com",
		},
		"another version": {func(r *admissionv1.AdmissionRequest) { r.Resource.Version = "v2" }, `"v2"`},
		"a subresource":   {func(r *admissionv1.AdmissionRequest) { r.SubResource = "status" }, "pods/status"},
		"no namespace":    {func(r *admissionv1.AdmissionRequest) { r.Namespace = "" }, "namespace"},
		"no object":       {func(r *admissionv1.AdmissionRequest) { r.Object.Raw = nil }, "reading the Pod"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			review := request{kind: "Pod", object: object("Pod", pinned)}.review(t)
			c.change(review.Request)
			wantDenied(t, b.send(t, ValidatePath, review), 400, c.want)
			if got := b.send(t, MutatePath, review); !got.Allowed || len(got.Patch) > 0 {
				t.Errorf("mutation: got %+v, want an admission without a patch", got)
			}
		})
	}
	b := newBench(t)
	b.Kinds = nil
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", elsewhere)}), 400)
	empty := &admissionv1.AdmissionReview{}
	empty.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	wantDenied(t, b.send(t, ValidatePath, empty), 400)
}

// Invalid objects are denied, and the denial names the field.
func TestThreatBadObjectsAreDenied(t *testing.T) {
	cases := map[string]struct {
		raw  string
		code int32
		want string
	}{
		"null containers": {`{"spec":{"containers":null}}`, 400, "spec.containers"},
		"null container":  {`{"spec":{"containers":[null]}}`, 400, "spec.containers[0]"},
		"wrong type":      {`{"spec":{"containers":[{"name":"a","image":{}}]}}`, 400, "spec.containers.image"},
		"image twice": {
			`{"spec":{"containers":[{"image":"` + pinned + `","image":"` + unsigned + `"}]}}`, 400,
			"spec.containers[0].image",
		},
		"other case": {`{"spec":{"containers":[{"name":"a","Image":"` + pinned + `"}]}}`, 403, "empty"},
		"both cases": {
			`{"spec":{"containers":[{"name":"a","Image":"` + pinned + `","image":"` + unsigned + `"}]}}`, 403,
			"unsigned",
		},
		"no image": {`{"spec":{"containers":[{"name":"a"}]}}`, 403, "empty"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, got := newBench(t).admit(t, request{kind: "Pod", object: c.raw})
			wantDenied(t, got, c.code, c.want)
		})
	}
}

// A snapshot without all policies admits nothing.
func TestThreatNothingIsAdmittedBeforeThePoliciesAreKnown(t *testing.T) {
	b := newBench(t)
	b.Store = store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO})
	pod := request{kind: "Pod", object: object("Pod", elsewhere)}
	_, got := b.admit(t, pod)
	wantDenied(t, got, 503, "policies are still being loaded")
	b.Store.MarkPrimed()
	_, got = b.admit(t, pod)
	wantAdmitted(t, got)
}

// A signature expires by the gate's clock.
func TestThreatExpiredSignaturesDoNotCount(t *testing.T) {
	b := newBench(t)
	e := usual()
	for i := range e.statements {
		e.statements[i].NotAfter = b.clock.Now().Add(time.Hour)
	}
	b.root.answers(e, nil)
	pod := request{kind: "Pod", object: object("Pod", pinned)}
	wantAdmitted(t, b.validate(t, pod))
	b.clock.Step(time.Hour)
	wantDenied(t, b.validate(t, pod), 403, "has not signed")
}

// A dry run is decided like any other request.
func TestDryRun(t *testing.T) {
	b := newBench(t)
	review := request{kind: "Pod", object: object("Pod", unsigned)}.review(t)
	review.Request.DryRun = ptr.To(true)
	wantDenied(t, b.send(t, ValidatePath, review), 403)
}

// A panic anywhere denies and does not end the process.
func TestThreatPanicDenies(t *testing.T) {
	b := newBench(t)
	b.root.answers(panicking{}, nil)
	pod := request{kind: "Pod", object: object("Pod", pinned)}
	wantDenied(t, b.validate(t, pod), 500, "operator's log")
	if got := b.send(t, MutatePath, pod.review(t)); !got.Allowed || len(got.Patch) > 0 {
		t.Errorf("mutation: got %+v, want an admission without a patch", got)
	}

	b = newBench(t)
	b.root.answer = func(context.Context, string) (trust.Evidence, error) { panic("in the fetch") }
	wantDenied(t, b.validate(t, pod), 503)

	b = newBench(t)
	b.Tracker = nil
	wantDenied(t, b.validate(t, pod), 503)
	b.Namespaces = nil
	wantDenied(t, b.validate(t, pod), 500)
}

// panicking is evidence that panics when it is used.
type panicking struct{ *evidence }

func (panicking) Statements(_, _ string) []trust.Statement { panic("in the evidence") }
