// Package gate runs the admission handlers with a real store and tracker in the process of a test.
package gate

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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
	"github.com/countersign-dev/countersign/webhooks"
)

// Refresh is the refreshInterval of the trust roots.
const Refresh = 5 * time.Minute

// Gate is both admission handlers, with a real store and tracker. The tracker runs until the test
// ends.
type Gate struct {
	*webhooks.Gate
	// Clock is the clock of the store, which the test moves.
	Clock *clocktesting.FakeClock
	// Stop ends the tracker.
	Stop func()

	handler http.Handler
	began   time.Time // in real time
}

// New returns a gate with policies, by name. Images that none of them covers are denied.
func New(t *testing.T, now time.Time, policies map[string]*v1alpha1.ImagePolicySpec) *Gate {
	t.Helper()
	g := &Gate{Clock: clocktesting.NewFakeClock(now), began: time.Now()}
	s := store.New(store.Options{Uncovered: policy.UncoveredDeny})
	for name, spec := range policies {
		compiled, err := policy.Compile(name, spec)
		if err != nil {
			t.Fatalf("policy %s: %v", name, err)
		}
		s.PutPolicy(compiled, "1")
	}
	s.MarkPrimed()
	g.Gate = &webhooks.Gate{
		Store: s, Tracker: store.NewTracker(s, g.Clock, func(string) {}), Namespaces: namespaces{},
		LiveNamespaces: namespaces{}, Kinds: workload.Builtin(), Clock: g.Clock, Deadline: time.Minute,
		Events: events.NewFakeRecorder(0),
	}
	mux := http.NewServeMux()
	g.Register(mux.Handle)
	g.handler = mux
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Tracker.Run(ctx) }()
	g.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.Stop)
	return g
}

// HostsNow is the clock of the limits of hosts: a request waits in real time for the end of a short
// pause.
func (g *Gate) HostsNow() time.Time { return g.Clock.Now().Add(time.Since(g.began)) }

// Put publishes a trust root. The tracker refreshes its evidence every five minutes.
func (g *Gate) Put(name string, root trust.Root) {
	g.Store.PutRoot(name, store.Root{Verifier: root})
	g.Tracker.Reset(name, Refresh)
}

// namespaces has every namespace, without labels.
type namespaces struct{ client.Reader }

// Get implements client.Reader.
func (namespaces) Get(_ context.Context, key types.NamespacedName, o client.Object, _ ...client.GetOption) error {
	o.SetName(key.Name)
	return nil
}

// review returns the review of a Pod with one image.
func review(t *testing.T, pod []byte) *bytes.Reader {
	t.Helper()
	request := &admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID: "1", Name: "app", Namespace: "shop", Operation: admissionv1.Create,
		Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
	}}
	request.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	request.Request.Object.Raw = pod
	raw, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(raw)
}

// send sends a Pod to a handler, and returns the answer.
func (g *Gate) send(t *testing.T, path string, pod []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, review(t, pod))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, req)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Response == nil {
		t.Fatalf("status %d, answer %q: %v", w.Code, w.Body, err)
	}
	return answer.Response
}

// Outcome is what the gate decides about a Pod.
type Outcome struct {
	// Code is that of the denial. 0: the Pod is admitted.
	Code int32
	// Image is the image of the Pod after the mutation.
	Image string
	// Text is that of the denial, or of the warnings.
	Text string
}

// Admit does as the API server does: it mutates a Pod, and validates it.
func (g *Gate) Admit(t *testing.T, image string) Outcome {
	t.Helper()
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: image}}}}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	mutated := g.send(t, webhooks.MutatePath, raw)
	if len(mutated.Patch) > 0 {
		patch, err := jsonpatch.DecodePatch(mutated.Patch)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = patch.Apply(raw); err != nil {
			t.Fatal(err)
		}
	}
	var stored corev1.Pod
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	got := Outcome{Image: stored.Spec.Containers[0].Image}
	answer := g.send(t, webhooks.ValidatePath, raw)
	if !answer.Allowed {
		got.Code, got.Text = answer.Result.Code, answer.Result.Message
		return got
	}
	got.Text = strings.Join(append(mutated.Warnings, answer.Warnings...), "\n")
	return got
}

// Verdict is an expected outcome.
type Verdict int

// The verdicts.
const (
	CouldNotCheck Verdict = iota
	Admitted
	Warned // admitted, with a warning
	Denied // as not signed
)

// Is compares an outcome with a verdict. A Pod that is admitted must have the digest; a denial must
// contain one of the texts.
func (got Outcome) Is(want Verdict, digest string, says ...string) error {
	code := map[Verdict]int32{CouldNotCheck: http.StatusServiceUnavailable, Denied: http.StatusForbidden}[want]
	switch {
	case got.Code != code:
		return fmt.Errorf("got code %d (%s), want %d", got.Code, got.Text, code)
	case code == 0 && !strings.HasSuffix(got.Image, "@"+digest):
		return fmt.Errorf("got image %s, want it pinned to %s", got.Image, digest)
	case code == 0 && (got.Text != "") != (want == Warned):
		return fmt.Errorf("got warnings %q, want some: %t", got.Text, want == Warned)
	case code != 0 && !containsAny(got.Text, says):
		return fmt.Errorf("got %q, want one of %q in it", got.Text, says)
	}
	return nil
}

func containsAny(text string, parts []string) bool {
	for _, one := range parts {
		if strings.Contains(text, one) {
			return true
		}
	}
	return len(parts) == 0
}
