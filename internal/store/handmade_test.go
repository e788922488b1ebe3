package store

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/test/handmade"
)

// handmadeBench returns a bench with a trust root "acme", pinned to the keys, over metadata that no
// real client would sign.
func handmadeBench(t *testing.T, files map[string][]byte, pins ...string) *bench {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body := files[r.URL.Path]
		switch {
		case r.URL.Path == "/v2/":
			body = []byte("{}")
		case body == nil:
			w.WriteHeader(http.StatusNotFound)
			body = []byte(`{"errors":[{"code":"METADATA_NOT_FOUND"}]}`)
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	get, err := registry.New(registry.Config{Server: server.URL, PlainHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	root, err := notary.New(notary.Config{Name: "acme", RootKeyIDs: pins, Clock: time.Now}, get)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		Store: New(Options{Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO}),
		clock: clocktesting.NewFakeClock(time.Now()),
	}
	b.Tracker = NewTracker(b.Store, b.clock, func(string) {})
	b.PutRoot("acme", Root{Verifier: root})
	return b
}

// ensured fetches the repository of an image.
func (b *bench) ensured(t *testing.T, image string) {
	t.Helper()
	ref, err := imageref.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ensure(t.Context(), key(ref)); err != nil {
		t.Fatal(err)
	}
}

const (
	acmeApp  = "registry.example.com/acme/app"
	appFives = "5555555555555555555555555555555555555555555555555555555555555555"
)

// A signer whose custom data is not in canonical order signs other bytes than readers verify. The
// denial names the file and the rule.
func TestCustomDataOutOfOrderIsNamed(t *testing.T) {
	signers, files := handmade.NewSigners(t, "ci", "qa"), map[string][]byte{}
	sum := strings.Repeat("\x55", 32)
	signers.Publish(t, handmade.Repository{
		Name: acmeApp, Digests: map[string]string{"v1": appFives},
		Extra: map[string]handmade.Object{"qa": {"targets": handmade.Object{"v1": handmade.Object{
			"length": 1000, "hashes": handmade.Object{"sha256": base64.StdEncoding.EncodeToString([]byte(sum))},
			"custom": json.RawMessage(`{"ticket":"QA-7","build":{"number":7,"branch":"main"}}`),
		}}}},
	}, files)
	b := handmadeBench(t, files, signers.Root.Canonical)
	b.ensured(t, acmeApp+":v1")
	p, err := policy.Compile("production", &v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, TrustRoots: []v1alpha1.ObjectName{"acme"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := policy.NewSet(policy.UncoveredAllow,
		[]*policy.Policy{p}).Decide(policy.Request{Image: acmeApp + ":v1", Now: time.Now()}, b.Load())
	if got.Verdict != policy.Denied {
		t.Errorf("verdict %d, want a denial", got.Verdict)
	}
	for _, words := range []string{
		`"qa" has not signed`, "signed by ci", "targets/qa.json is signed by 0 of the keys",
		"the signature of key " + signers.Roles["qa"].Canonical, "canonical JSON", "custom data",
	} {
		if !strings.Contains(got.Message, words) {
			t.Errorf("%q does not say %q", got.Message, words)
		}
	}
}

// The status lists a pinned key that no verified repository has, as soon as one repository is
// verified.
func TestUnanchored(t *testing.T) {
	one, other, files := handmade.NewSigners(t, "ci"), handmade.NewSigners(t, "ci"), map[string][]byte{}
	publish := func(s *handmade.Signers, name string) {
		s.Publish(t, handmade.Repository{Name: name, Digests: map[string]string{"v1": appFives}}, files)
	}
	publish(one, acmeApp)
	publish(other, "registry.example.com/acme/other")
	b := handmadeBench(t, files, one.Root.Canonical, other.Root.Canonical)
	unanchored := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, b.Status("acme").Unanchored, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("unanchored (-want +got):\n%s", diff)
		}
	}
	unanchored()
	b.ensured(t, "registry.example.com/acme/never")
	unanchored() // that carries no root
	b.ensured(t, acmeApp+":v1")
	unanchored(other.Root.Canonical)
	b.ensured(t, "registry.example.com/acme/other:v1")
	unanchored()
	b.PutRoot("acme", Root{Fault: trust.NewFault(v1alpha1.ReasonInvalidKey, "no key")})
	unanchored()
}
