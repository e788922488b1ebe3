package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

	repository = "registry.example.com/acme/app"
	signed     = repository + ":signed"
	ciOnly     = repository + ":ci-only"
	unsigned   = repository + ":unsigned"
	pinned     = signed + "@" + digestA
	// elsewhere is covered by no policy.
	elsewhere = "registry.example.com/other/app:v1"
)

// evidence is evidence with the given statements.
type evidence struct {
	trust.Unsigned
	statements []trust.Statement
}

func (e *evidence) Statements(tag, digest string) []trust.Statement {
	var found []trust.Statement
	for _, s := range e.statements {
		if (tag == "" || s.Tag == tag) && (digest == "" || s.Digest == digest) {
			found = append(found, s)
		}
	}
	return found
}

func (*evidence) Signed() bool { return true }

func (*evidence) Expiry() (notAfter time.Time, file string) { return time.Time{}, "" }

// usual returns evidence with one tag that both roles signed, and one that only CI signed.
func usual(further ...trust.Statement) *evidence {
	return &evidence{statements: append([]trust.Statement{
		{Digest: digestA, Tag: "signed", Role: "ci"}, {Digest: digestA, Tag: "signed", Role: "qa"},
		{Digest: digestB, Tag: "ci-only", Role: "ci"},
	}, further...)}
}

// root is a trust root whose answers the test sets.
type root struct {
	mu      sync.Mutex
	fetches int
	answer  func(ctx context.Context, repository string) (trust.Evidence, error)
}

func (r *root) Probe(context.Context, string) error { return nil }

func (*root) Host(trust.Subject) string { return "notary.example.com" }

func (r *root) Fetch(ctx context.Context, about trust.Subject, _ trust.Evidence) (trust.Evidence, error) {
	repository := about.Repository
	r.mu.Lock()
	r.fetches++
	answer := r.answer
	r.mu.Unlock()
	return answer(ctx, repository)
}

func (*root) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	return held, nil
}

func (*root) Subject(image imageref.Ref) trust.Subject {
	return trust.Subject{Repository: image.Name()}
}

func (r *root) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetches
}

// answers sets the result of later fetches, for every repository.
func (r *root) answers(e trust.Evidence, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = func(context.Context, string) (trust.Evidence, error) { return e, err }
}

// namespaces reads Namespaces from a map of their labels.
type namespaces struct {
	client.Reader
	labels map[string]map[string]string
	err    error
}

func (n namespaces) Get(_ context.Context, key types.NamespacedName, o client.Object, _ ...client.GetOption) error {
	if n.err != nil {
		return n.err
	}
	labels, ok := n.labels[key.Name]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, key.Name)
	}
	o.SetName(key.Name)
	o.SetLabels(labels)
	return nil
}

// recorded records events, each as "<type> <reason> <action> <apiVersion> <kind>
// <namespace>/<name>: <note>", with "(<uid>)" after the name if the object has a UID.
type recorded struct {
	mu     sync.Mutex
	events []string
}

func (r *recorded) Eventf(regarding, _ runtime.Object, kind, reason, action, note string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := regarding.(*corev1.ObjectReference)
	if !ok {
		panic("the event is not about an ObjectReference")
	}
	name := o.Name
	if o.UID != "" {
		name += "(" + string(o.UID) + ")"
	}
	r.events = append(r.events,
		fmt.Sprintf("%s %s %s %s %s %s/%s: ", kind, reason, action, o.APIVersion, o.Kind, o.Namespace, name)+
			fmt.Sprintf(note, args...))
}

// all returns the events since the last call.
func (r *recorded) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

// bench is a gate behind HTTP with a real store and tracker, one trust root and the policies of the
// test.
type bench struct {
	*Gate
	root    *root
	clock   *clocktesting.FakeClock
	events  *recorded
	handler http.Handler
}

// requireBoth returns a policy that requires ci and qa.
func requireBoth(change func(*v1alpha1.ImagePolicySpec)) v1alpha1.ImagePolicySpec {
	spec := v1alpha1.ImagePolicySpec{
		Images:        []v1alpha1.ImagePattern{"registry.example.com/acme/**"},
		TrustRoots:    []v1alpha1.ObjectName{"acme"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
	}
	if change != nil {
		change(&spec)
	}
	return spec
}

// kinds returns the builtin kinds and a further one.
func kinds(t testing.TB) workload.Kinds {
	t.Helper()
	all, err := workload.Builtin().With([]string{"rollouts.v1alpha1.argoproj.io=spec.template"})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func newBench(t *testing.T, policies ...v1alpha1.ImagePolicySpec) *bench {
	t.Helper()
	return newBenchReading(t, policy.ShortNamesDockerIO, policies...)
}

// newBenchReading is newBench with another reading of short names.
func newBenchReading(t *testing.T, as policy.ShortNames, policies ...v1alpha1.ImagePolicySpec) *bench {
	t.Helper()
	b := &bench{
		root: &root{}, events: &recorded{},
		clock: clocktesting.NewFakeClock(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)),
	}
	b.root.answers(usual(), nil)
	s := store.New(store.Options{Uncovered: policy.UncoveredAllow, ShortNames: as})
	s.PutRoot("acme", store.Root{Verifier: b.root})
	if len(policies) == 0 {
		policies = []v1alpha1.ImagePolicySpec{requireBoth(nil)}
	}
	for i, spec := range policies {
		compiled, err := policy.Compile(fmt.Sprintf("policy-%d", i), &spec)
		if err != nil {
			t.Fatal(err)
		}
		s.PutPolicy(compiled, "1")
	}
	s.MarkPrimed()
	known := namespaces{labels: map[string]map[string]string{"shop": {"env": "production"}, "lab": {"env": "lab"}}}
	b.Gate = &Gate{
		Store: s, Tracker: store.NewTracker(s, b.clock, func(string) {}),
		Namespaces: known, LiveNamespaces: namespaces{}, Kinds: kinds(t), Clock: b.clock, Deadline: time.Minute,
		Events: b.events,
	}
	mux := http.NewServeMux()
	b.Register(mux.Handle)
	b.handler = mux
	return b
}

// request is a request of a client to the API server.
type request struct {
	kind, namespace, subresource string
	object, old                  any
}

// resource returns the resource of a kind, independently of the table under test.
func resource(kind string) metav1.GroupVersionResource {
	if name, group, ok := strings.Cut(kind, "."); ok {
		return metav1.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: name}
	}
	group := map[string]string{
		"DeploymentConfig": "apps.openshift.io", "Deployment": "apps", "ReplicaSet": "apps", "StatefulSet": "apps",
		"DaemonSet": "apps", "Job": "batch", "CronJob": "batch",
	}[kind]
	return metav1.GroupVersionResource{Group: group, Version: "v1", Resource: strings.ToLower(kind) + "s"}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	switch v := v.(type) {
	case nil:
		return nil
	case []byte:
		return v
	case string:
		return []byte(v)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (r request) review(t testing.TB) *admissionv1.AdmissionReview {
	t.Helper()
	ar := &admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID: "7", Name: "acme", Namespace: r.namespace, Operation: admissionv1.Create,
		Resource: resource(r.kind), SubResource: r.subresource,
		Kind: metav1.GroupVersionKind{Group: resource(r.kind).Group, Version: resource(r.kind).Version, Kind: r.kind},
	}}
	if r.namespace == "" {
		ar.Request.Namespace = "shop"
	}
	ar.Request.Object.Raw = encode(t, r.object)
	if r.old != nil {
		ar.Request.Operation = admissionv1.Update
		ar.Request.OldObject.Raw = encode(t, r.old)
	}
	ar.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	return ar
}

// send posts a review and returns the answer.
func (b *bench) send(t testing.TB, path string, review *admissionv1.AdmissionReview) *admissionv1.AdmissionResponse {
	t.Helper()
	raw, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(raw))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, req)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
		t.Fatalf("status %d, answer %q: %v", w.Code, w.Body, err)
	}
	return answer.Response
}

// validate sends a request to the validating handler only.
func (b *bench) validate(t testing.TB, r request) *admissionv1.AdmissionResponse {
	t.Helper()
	return b.send(t, ValidatePath, r.review(t))
}

// mutate sends a request to the mutating handler, and returns the patched object.
func (b *bench) mutate(t testing.TB, r request) []byte {
	t.Helper()
	stored := encode(t, r.object)
	answer := b.send(t, MutatePath, r.review(t))
	if !answer.Allowed {
		t.Errorf("mutation: got %+v, want an admission", answer.Result)
	}
	if len(answer.Patch) == 0 {
		return stored
	}
	patch, err := jsonpatch.DecodePatch(answer.Patch)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err = patch.Apply(stored); err != nil {
		t.Fatalf("applying %s: %v", answer.Patch, err)
	}
	return stored
}

// admit does as the API server does: it mutates, applies the patch and validates. It returns the
// patched object.
func (b *bench) admit(t testing.TB, r request) (stored []byte, answer *admissionv1.AdmissionResponse) {
	t.Helper()
	stored = b.mutate(t, r)
	r.object = stored
	return stored, b.validate(t, r)
}

// wantDenied checks the code of a denial, and that its message contains some texts.
func wantDenied(t testing.TB, got *admissionv1.AdmissionResponse, code int32, contains ...string) {
	t.Helper()
	reason := map[int32]metav1.StatusReason{
		400: metav1.StatusReasonBadRequest, 403: metav1.StatusReasonForbidden,
		500: metav1.StatusReasonInternalError, 503: metav1.StatusReasonServiceUnavailable,
	}[code]
	switch {
	case got.Allowed:
		t.Fatalf("got an admission, want a denial with %d", code)
	case got.Result.Code != code || got.Result.Reason != reason:
		t.Errorf("got a denial with %d %s, want %d %s: %s", got.Result.Code, got.Result.Reason, code, reason,
			got.Result.Message)
	}
	for _, s := range contains {
		if !strings.Contains(got.Result.Message, s) {
			t.Errorf("got the message %q, want %q in it", got.Result.Message, s)
		}
	}
}

// wantImage checks that an object has an image in some container.
func wantImage(t testing.TB, stored []byte, image string) {
	t.Helper()
	if !strings.Contains(string(stored), `"image":"`+image+`"`) {
		t.Errorf("got %s, want the image %q in it", stored, image)
	}
}

func wantAdmitted(t testing.TB, got *admissionv1.AdmissionResponse) {
	t.Helper()
	if !got.Allowed {
		t.Fatalf("got a denial with %d, want an admission: %s", got.Result.Code, got.Result.Message)
	}
}
