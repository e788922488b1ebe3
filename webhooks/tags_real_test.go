package webhooks

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
	"github.com/countersign-dev/countersign/test/digests"
)

// tagBench is a gate in front of a real registry, behind a proxy.
type tagBench struct {
	*bench
	server     *distribution.Server
	proxy      *faultproxy.Proxy
	repository string // through the proxy
	root       *bydigest.Root
}

// newTagBench returns a tagBench whose answers about tags count for an interval. The tag v1 is a
// signed image.
func newTagBench(t *testing.T, server *distribution.Server, interval time.Duration) (b *tagBench, digest string) {
	t.Helper()
	b = &tagBench{server: server, proxy: faultproxy.Run(t, "https://"+server.Host, server.CA)}
	host := strings.TrimPrefix(b.proxy.URL, "https://")
	path := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	b.repository = host + "/acme/" + path
	b.bench = newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.Images, s.TrustRoots = []v1alpha1.ImagePattern{v1alpha1.ImagePattern(host + "/**")}, []v1alpha1.ObjectName{
			"digests",
		}
	}))
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: map[string]registry.Config{host: {CABundle: string(b.proxy.CA.PEM)}},
		Hosts:      registry.NewHosts(b.clock.Now),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.root = digests.NewRoot(images, interval, b.clock.Now)
	b.Store.PutRoot("digests", store.Root{Verifier: b.root})
	return b, b.push(t, "ci", "qa")
}

// push pushes a new image with the tag v1, signed by some roles, and returns its digest.
func (b *tagBench) push(t *testing.T, roles ...string) string {
	t.Helper()
	_, path, _ := strings.Cut(b.repository, "/")
	tag, err := name.NewTag(b.server.Host + "/" + path + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	options := b.server.Options(t.Context())
	if err := remote.Write(tag, image, options...); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		if err := digests.Sign(tag.Digest(digest.String()), role, options...); err != nil {
			t.Fatal(err)
		}
	}
	return digest.String()
}

// resolves returns how many requests asked for the tag since the last call.
func (b *tagBench) resolves() int {
	n := 0
	for _, r := range b.proxy.Requests() {
		if strings.HasSuffix(r.Path, "/manifests/v1") {
			n++
		}
	}
	b.proxy.Reset()
	return n
}

// wantPinned checks that a Pod of the tag is admitted and pinned to a digest, and returns the
// warnings of the mutation.
func (b *tagBench) wantPinned(t *testing.T, digest string) []string {
	t.Helper()
	mutated := b.send(t, MutatePath, pod(b.repository+":v1").review(t))
	stored, got := b.admit(t, pod(b.repository+":v1"))
	wantAdmitted(t, got)
	wantImage(t, stored, b.repository+":v1@"+digest)
	return mutated.Warnings
}

func (b *tagBench) validateTag(t *testing.T) *admissionv1.AdmissionResponse {
	t.Helper()
	return b.validate(t, pod(b.repository+":v1"))
}

// tagFault returns a fault of requests for the tag alone.
func tagFault(f faultproxy.Fault) faultproxy.Fault {
	f.Match = func(path string) bool { return strings.HasSuffix(path, "/manifests/v1") }
	return f
}

// TestTags decides on tags of a real registry.
func TestTags(t *testing.T) {
	server := distribution.Run(t, distribution.Options{})
	for name, test := range map[string]func(*testing.T, *distribution.Server){
		"interval": testTagInterval, "always": testTagAlways, "moves": testTagMoves, "stopped": testTagRegistryStopped,
		"refusals": testTagRefusals, "denial": testTagDenial, "restart": testTagRestart,
		"hangs": testTagRegistryHangs,
	} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

// At first sight of a tag the registry gets one request for it; within the interval it gets none,
// and after it one for all Pods.
func testTagInterval(t *testing.T, server *distribution.Server) {
	b, digest := newTagBench(t, server, 10*time.Second)
	b.wantPinned(t, digest)
	requests := b.proxy.Requests()
	if !slices.ContainsFunc(requests, func(r faultproxy.Request) bool { return strings.Contains(r.Path, "/blobs/") }) {
		t.Errorf("got the requests %v, want the signature's blob among them", requests)
	}
	if n := b.resolves(); n != 1 {
		t.Errorf("got %d requests for the tag at first sight, want 1", n)
	}
	b.clock.Step(9 * time.Second)
	b.wantPinned(t, digest)
	if requests := b.proxy.Requests(); len(requests) > 0 {
		t.Errorf("got the requests %v within the interval, want none", requests)
	}
	b.clock.Step(time.Second)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if got := b.validateTag(t); !strings.Contains(got.Result.Message, "not pinned") {
				t.Errorf("got %v, want a verified digest", got.Result)
			}
		})
	}
	group.Wait()
	if requests := b.proxy.Requests(); len(requests) != 1 || b.resolves() != 1 {
		t.Errorf("got the requests %v after the interval, want one for the tag", requests)
	}
}

// With the interval 0s each request gets an answer of its own, and never an older one.
func testTagAlways(t *testing.T, server *distribution.Server) {
	b, digest := newTagBench(t, server, 0)
	b.root.Now = func() time.Time { // time passes while the registry answers
		defer b.clock.Step(time.Millisecond)
		return b.clock.Now()
	}
	for range 3 {
		b.validateTag(t)
		if n := b.resolves(); n != 1 {
			t.Errorf("got %d requests for the tag, want 1", n)
		}
		b.clock.Step(time.Millisecond)
	}
	moved := b.push(t, "ci", "qa")
	b.wantPinned(t, moved)
	if moved == digest {
		t.Fatal("got the same image twice")
	}
	b.clock.Step(time.Millisecond)
	b.proxy.Disconnect()
	wantDenied(t, b.validateTag(t), http.StatusServiceUnavailable, "refused")
}

// A tag that moves means its old digest within the interval, and the new one after it.
func testTagMoves(t *testing.T, server *distribution.Server) {
	b, digest := newTagBench(t, server, 10*time.Second)
	b.wantPinned(t, digest)
	moved := b.push(t, "ci", "qa")
	b.clock.Step(9 * time.Second)
	b.wantPinned(t, digest)
	b.clock.Step(time.Second)
	b.wantPinned(t, moved)
	b.push(t) // without a signature
	b.clock.Step(10 * time.Second)
	wantDenied(t, b.validateTag(t), http.StatusForbidden, `role "ci" has not signed`)
}

// With the registry down, an older answer counts with a warning, for a day.
func testTagRegistryStopped(t *testing.T, server *distribution.Server) {
	b, digest := newTagBench(t, server, 10*time.Second)
	b.wantPinned(t, digest)
	b.proxy.Disconnect()
	b.clock.Step(9 * time.Second)
	if warnings := b.wantPinned(t, digest); len(warnings) > 0 {
		t.Errorf("got the warnings %q within the interval, want none", warnings)
	}
	b.clock.Step(time.Hour)
	warnings := b.wantPinned(t, digest)
	if len(warnings) != 1 || !strings.Contains(warnings[0], `named for the tag "v1" at 2026-05-01T12:00:00Z`) ||
		!strings.Contains(warnings[0], "connection was refused") {
		t.Errorf("got the warnings %q, want one with the tag, the time and the fault", warnings)
	}
	b.clock.Step(24 * time.Hour)
	wantDenied(t, b.validateTag(t), http.StatusServiceUnavailable, "answer about the tag", "is too old", "refused")
	if err := b.proxy.Reconnect(); err != nil {
		t.Fatal(err)
	}
	b.clock.Step(time.Minute)
	if warnings := b.wantPinned(t, digest); len(warnings) > 0 {
		t.Errorf("got the warnings %q with the registry back, want none", warnings)
	}
}

// Only an answer that the registry could not be queried lets an older one count.
func testTagRefusals(t *testing.T, server *distribution.Server) {
	for _, test := range []struct {
		fault  faultproxy.Fault
		counts bool
	}{
		{faultproxy.Fault{Status: http.StatusTooManyRequests, RetryAfter: "30"}, true},
		{faultproxy.Fault{Status: http.StatusInternalServerError}, true},
		{faultproxy.Fault{Drop: true}, true},
		{faultproxy.Fault{Status: http.StatusUnauthorized}, false},
		{faultproxy.Fault{Status: http.StatusForbidden}, false},
		{faultproxy.Fault{Status: http.StatusBadRequest}, false},
		{faultproxy.Fault{Status: http.StatusNotFound}, false},
	} {
		b, digest := newTagBench(t, server, 10*time.Second)
		b.wantPinned(t, digest)
		b.proxy.Set(tagFault(test.fault))
		b.clock.Step(time.Minute)
		if test.counts {
			if warnings := b.wantPinned(t, digest); len(warnings) != 1 {
				t.Errorf("status %d: got the warnings %q, want one", test.fault.Status, warnings)
			}
			continue
		}
		wantDenied(t, b.validateTag(t), http.StatusServiceUnavailable, "is too old")
	}
	// The registry's own 404 replaces the answer.
	b, digest := newTagBench(t, server, 10*time.Second)
	b.wantPinned(t, digest)
	b.proxy.Set(tagFault(faultproxy.Fault{
		Status: http.StatusNotFound, Body: `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`,
	}))
	b.clock.Step(time.Minute)
	wantDenied(t, b.validateTag(t), http.StatusForbidden, `the registry has no tag "v1"`)
	b.proxy.Disconnect()
	b.clock.Step(time.Minute)
	wantDenied(t, b.validateTag(t), http.StatusServiceUnavailable, "is too old")
}

// No denial rests on an older answer, since the tag may have moved to a signed digest.
func testTagDenial(t *testing.T, server *distribution.Server) {
	b, _ := newTagBench(t, server, 10*time.Second)
	moved := b.push(t, "ci")
	wantDenied(t, b.validateTag(t), http.StatusForbidden, `role "qa" has not signed`, short(moved))
	b.proxy.Set(tagFault(faultproxy.Fault{Status: http.StatusInternalServerError}))
	b.clock.Step(time.Minute)
	wantDenied(t, b.validateTag(t), http.StatusServiceUnavailable, `role "qa" is not known to have signed`,
		"status 500")
	if n := b.resolves(); n > 3 { // one before the fault, then HEAD and GET
		t.Errorf("got %d requests for the tag, want no second attempt for one Pod", n)
	}
}

// A registry that hangs delays a request for two seconds, also before a denial.
func testTagRegistryHangs(t *testing.T, server *distribution.Server) {
	b, _ := newTagBench(t, server, 10*time.Second)
	b.Deadline = 15 * time.Second
	b.push(t, "ci")
	wantDenied(t, b.validateTag(t), http.StatusForbidden, `role "qa" has not signed`)
	b.proxy.Set(tagFault(faultproxy.Fault{Hang: true}))
	b.clock.Step(time.Minute)
	result := make(chan *admissionv1.AdmissionResponse, 1)
	review := pod(b.repository + ":v1").review(t)
	go func() {
		answer := b.Validate(t.Context(), admissionRequest(review)).AdmissionResponse
		result <- &answer
	}()
	poll.Await(t, "the request to wait", func() error {
		if !b.clock.HasWaiters() {
			return errors.New("it does not")
		}
		return nil
	})
	b.clock.Step(2 * time.Second)
	got := <-result
	wantDenied(t, got, http.StatusServiceUnavailable, "no answer within 2s")
	if strings.Contains(got.Result.Message, "waiting for") {
		t.Errorf("got the message %q, want no second wait", got.Result.Message)
	}
}

// After a restart with the registry down, a tag is decided by the record, with a warning.
func testTagRestart(t *testing.T, server *distribution.Server) {
	b, digest := newTagBench(t, server, 10*time.Second)
	b.wantPinned(t, digest)
	repository := b.Store.Load().Repositories()[0]
	packed, err := b.root.Pack(b.Store.Load().Verified(repository))
	if err != nil {
		t.Fatal(err)
	}
	b.proxy.Disconnect()
	b.clock.Step(3 * time.Hour)
	b.Tracker.Release(repository)
	b.Tracker.Forget("digests")
	wantDenied(t, b.validateTag(t), http.StatusServiceUnavailable, "refused")
	if err := b.Tracker.Restore(repository, b.Store.Load().Root("digests"), packed); err != nil {
		t.Fatal(err)
	}
	if warnings := b.wantPinned(t, digest); len(warnings) != 1 {
		t.Errorf("got the warnings %q, want one of the older answer", warnings)
	}
}

// short returns a digest as messages show it: the algorithm and eight digits.
func short(digest string) string { return text.Cut(digest, len("sha256:")+8+len("...")) }
