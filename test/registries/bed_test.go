package registries

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/testenv/tokenserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/workload"
	"github.com/countersign-dev/countersign/test/digests"
	"github.com/countersign-dev/countersign/webhooks"
)

const (
	path               = "acme/app"
	username, password = "reader", "s3cret-passw0rd"
	// interval is the resolveInterval, and refresh the refreshInterval of the trust roots.
	interval = 10 * time.Second
	refresh  = 5 * time.Minute
	// nextTry is longer than each pause and backoff of the manager for a server that is down.
	nextTry = 31 * time.Second
	// hung is the timeout of requests to a registry that hangs.
	hung = time.Second
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// backend is a real registry with images and their signatures.
type backend struct {
	host    string
	ca      *tlstest.CA
	tokens  *tokenserver.Server
	storage map[string]registry.Config
	digests map[string]string // by tag
	options []remote.Option   // to push and pull
}

// newDistribution runs the reference registry: with tokens, a private CA, and a storage host of
// another CA. It lists referrers under a tag.
func newDistribution(t *testing.T) *backend {
	t.Helper()
	s := distribution.Run(t, distribution.Options{Username: username, Password: password, Token: true, Storage: true})
	b := &backend{
		host: s.Host, ca: s.CA, tokens: s.Tokens,
		storage: map[string]registry.Config{s.Storage: {CABundle: string(s.StorageCA.PEM)}},
	}
	b.push(t, s.Options(t.Context()))
	return b
}

// newReferrersAPI runs a registry with the referrers API.
func newReferrersAPI(t *testing.T) *backend {
	t.Helper()
	s := registryserver.Run(t)
	b := &backend{host: s.Host, ca: s.CA}
	b.push(t, s.Options(t.Context()))
	return b
}

// push pushes an index of two platforms for each tag. Both roles sign each but "half", which CI
// alone signs.
func (b *backend) push(t *testing.T, options []remote.Option) {
	t.Helper()
	b.digests, b.options = map[string]string{}, options
	for _, tag := range []string{"fresh", "stale", "digest", "half", "new", "new-digest"} {
		ref, err := name.NewTag(b.host + "/" + path + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		index, err := random.Index(64, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, index, options...); err != nil {
			t.Fatal(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		b.digests[tag] = digest.String()
		roles := []string{"ci", "qa"}
		if tag == "half" {
			roles = roles[:1]
		}
		for _, role := range roles {
			if err := digests.Sign(ref.Digest(digest.String()), role, options...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// settings returns the settings of the registry behind a proxy.
func (b *backend) settings(proxy *faultproxy.Proxy) map[string]registry.Config {
	cfg := registry.Config{CABundle: string(proxy.CA.PEM) + string(b.ca.PEM)}
	if b.tokens != nil {
		cfg.Username, cfg.Password, cfg.TokenServices = username, password, []string{b.tokens.Host}
	}
	all := map[string]registry.Config{host(proxy): cfg}
	for name, storage := range b.storage {
		all[name] = storage
	}
	return all
}

// host returns the host and port of a proxy.
func host(proxy *faultproxy.Proxy) string { return strings.TrimPrefix(proxy.URL, "https://") }

// gate is the admission handler with a real store and tracker. The tracker runs, by a clock that
// the test moves.
type gate struct {
	*webhooks.Gate
	clock   *clocktesting.FakeClock
	handler http.Handler
	began   time.Time // in real time
	stop    func()    // ends the tracker
}

// newGate returns a gate whose policy requires ci and qa from the trust roots.
func newGate(t *testing.T, now time.Time, roots ...string) *gate {
	t.Helper()
	g := &gate{clock: clocktesting.NewFakeClock(now), began: time.Now()}
	s := store.New(store.Options{Uncovered: policy.UncoveredDeny})
	spec := v1alpha1.ImagePolicySpec{
		Images:        []v1alpha1.ImagePattern{"*/acme/**"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
	}
	for _, root := range roots {
		spec.TrustRoots = append(spec.TrustRoots, v1alpha1.ObjectName(root))
	}
	compiled, err := policy.Compile("production", &spec)
	if err != nil {
		t.Fatal(err)
	}
	s.PutPolicy(compiled, "1")
	s.MarkPrimed()
	g.Gate = &webhooks.Gate{
		Store: s, Tracker: store.NewTracker(s, g.clock, func(string) {}), Namespaces: namespaces{},
		LiveNamespaces: namespaces{}, Kinds: workload.Builtin(), Clock: g.clock, Deadline: time.Minute,
		Events: events.NewFakeRecorder(0),
	}
	mux := http.NewServeMux()
	g.Register(mux.Handle)
	g.handler = mux
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Tracker.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.stop)
	return g
}

// hostsNow is the clock of the limits of hosts: a request waits in real time for the end of a short
// pause.
func (g *gate) hostsNow() time.Time { return g.clock.Now().Add(time.Since(g.began)) }

// put publishes a trust root.
func (g *gate) put(name string, root trust.Root) {
	g.Store.PutRoot(name, store.Root{Verifier: root})
	g.Tracker.Reset(name, refresh)
}

// namespaces has every namespace, without labels.
type namespaces struct{ client.Reader }

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
func (g *gate) send(t *testing.T, path string, pod []byte) *admissionv1.AdmissionResponse {
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

// outcome is what the gate decides about a Pod.
type outcome struct {
	code  int32 // of the denial; 0: the Pod is admitted
	image string
	text  string // of the denial, or of the warnings
}

// admit does as the API server does: it mutates a Pod, and validates it.
func (g *gate) admit(t *testing.T, image string) outcome {
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
	got := outcome{image: stored.Spec.Containers[0].Image}
	answer := g.send(t, webhooks.ValidatePath, raw)
	if !answer.Allowed {
		got.code, got.text = answer.Result.Code, answer.Result.Message
		return got
	}
	got.text = strings.Join(append(mutated.Warnings, answer.Warnings...), "\n")
	return got
}

// verdict is an expected outcome.
type verdict int

const (
	couldNotCheck verdict = iota
	admitted
	warned // admitted, with a warning
	denied // as not signed
)

// is compares an outcome with a verdict. A Pod that is admitted must have the digest; a denial must
// contain one of the texts.
func (got outcome) is(want verdict, digest string, says ...string) error {
	code := map[verdict]int32{couldNotCheck: http.StatusServiceUnavailable, denied: http.StatusForbidden}[want]
	switch {
	case got.code != code:
		return fmt.Errorf("got code %d (%s), want %d", got.code, got.text, code)
	case strings.Contains(got.text, password):
		return fmt.Errorf("got the password in %q", got.text)
	case code == 0 && !strings.HasSuffix(got.image, "@"+digest):
		return fmt.Errorf("got image %s, want it pinned to %s", got.image, digest)
	case code == 0 && (got.text != "") != (want == warned):
		return fmt.Errorf("got warnings %q, want some: %t", got.text, want == warned)
	case code != 0 && !containsAny(got.text, says):
		return fmt.Errorf("got %q, want one of %q in it", got.text, says)
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

// site is a gate whose trust root "registries" reads one registry through a proxy.
type site struct {
	*gate
	*backend
	proxy *faultproxy.Proxy
}

// newSite returns a gate over a registry, with a timeout of requests; 0: the default.
func newSite(t *testing.T, b *backend, timeout time.Duration) *site {
	t.Helper()
	s := &site{backend: b, proxy: faultproxy.Run(t, "https://"+b.host, b.ca)}
	s.gate = newGate(t, start, "registries")
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: b.settings(s.proxy), Hosts: registry.NewHosts(s.hostsNow), Timeout: timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.put("registries", digests.NewRoot(images, interval, s.clock.Now))
	return s
}

var start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// image returns the reference of a tag, or for a tag that contains "digest" of its digest.
func (s *site) image(tag string) string {
	if strings.Contains(tag, "digest") {
		return host(s.proxy) + "/" + path + "@" + s.digests[tag]
	}
	return host(s.proxy) + "/" + path + ":" + tag
}

// want checks the decision about an image.
func (s *site) want(t *testing.T, tag string, want verdict, says ...string) {
	t.Helper()
	if err := s.admit(t, s.image(tag)).is(want, s.digests[tag], says...); err != nil {
		t.Errorf("%s: %v", tag, err)
	}
}

// await waits until the decision about an image is the wanted one. It moves the clock on before
// each further try.
func (s *site) await(t *testing.T, tag string, want verdict, step time.Duration) {
	t.Helper()
	poll.Await(t, "the decision about "+tag, func() error {
		err := s.admit(t, s.image(tag)).is(want, s.digests[tag])
		if err != nil {
			s.clock.Step(step)
		}
		return err
	})
}

// learn fetches what is known before a fault: the tag "stale" past its interval, and the tags
// "fresh" and "half" and the digest "digest" as of now.
func (s *site) learn(t *testing.T) {
	t.Helper()
	s.await(t, "stale", admitted, time.Second)
	s.clock.Step(interval + time.Second)
	s.await(t, "digest", admitted, time.Second)
	s.await(t, "half", denied, time.Second)
	s.await(t, "fresh", admitted, time.Second)
}

// awaitStatus waits for the status of the trust root: with a fault of the reason, or without one
// where it is empty. It moves the clock on, so that the tracker refreshes.
func (s *site) awaitStatus(t *testing.T, reason string) {
	t.Helper()
	poll.Await(t, "the status", func() error {
		status := s.Tracker.Status("registries")
		fault := status.Server
		if fault == nil && status.Failing > 0 {
			fault = status.Faults[0].Fault
		}
		switch {
		case fault == nil && reason == "":
			return nil
		case fault == nil:
			s.clock.Step(refresh)
			return errors.New("got no fault")
		case fault.Reason != reason:
			s.clock.Step(nextTry)
			return fmt.Errorf("got %s (%w), want %q", fault.Reason, fault, reason)
		case !strings.Contains(fault.Error(), host(s.proxy)):
			return fmt.Errorf("got %w, want it to name the host", fault)
		}
		return nil
	})
}
