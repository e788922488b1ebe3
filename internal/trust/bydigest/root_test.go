package bydigest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	images "github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/bydigest"
)

const (
	one = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	two = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// registry has one digest for every tag.
type registry struct{}

func (registry) Resolve(_ context.Context, _, tag string) (string, error) {
	if tag == "none" {
		return "", &trust.NotFound{Code: "MANIFEST_UNKNOWN"}
	}
	return one, nil
}

func (registry) Probe(context.Context, string) error { return nil }

// signature is the evidence of a digest: its text.
type signature struct {
	trust.Unsigned

	text string
}

func (*signature) Signed() bool { return true }

// verifier accepts every signature but "forged".
type verifier struct{}

func (verifier) Fetch(_ context.Context, about trust.Subject, _ trust.Evidence) (trust.Evidence, error) {
	return &signature{text: about.Digest}, nil
}

func (verifier) Recheck(_ trust.Subject, held trust.Evidence) (trust.Evidence, error) {
	return held, nil
}

func (verifier) Pack(held trust.Evidence) ([]byte, error) { return []byte(held.(*signature).text), nil }

func (verifier) Unpack(_ trust.Subject, packed []byte, held trust.Evidence) (trust.Evidence, error) {
	if string(packed) == "forged" {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "forged")
	}
	if held != nil {
		return held, nil
	}
	return &signature{text: string(packed)}, nil
}

func newRoot(now *time.Time) *bydigest.Root {
	return &bydigest.Root{
		Registry: registry{}, Verifier: verifier{}, Interval: time.Minute, Now: func() time.Time { return *now },
		Remaps:   trust.Remaps{{Prefix: "mirror.example.com/", SignedPrefix: "registry.example.com/"}},
		Keychain: keychain{},
	}
}

// keychain has no pull secrets.
type keychain struct{}

func (keychain) Credentials(context.Context, string, string, bool) (images.Found, error) {
	return images.Found{}, nil
}

func parse(t *testing.T, image string) imageref.Ref {
	t.Helper()
	ref, err := imageref.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// A tag and a digest are two subjects, served by the registry that is pulled from. Signatures that
// lie elsewhere are served by another one.
func TestSubjectAndHost(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRoot(&now)
	tag := r.Subject(parse(t, "mirror.example.com/acme/app:v1"))
	digest := r.Subject(parse(t, "mirror.example.com/acme/app:v1@"+one))
	want := trust.Subject{Repository: "registry.example.com/acme/app", Pulled: "mirror.example.com/acme/app", Tag: "v1"}
	if diff := cmp.Diff(want, tag); diff != "" {
		t.Errorf("subject of a tag (-want +got):\n%s", diff)
	}
	want.Tag, want.Digest = "", one
	if diff := cmp.Diff(want, digest); diff != "" {
		t.Errorf("subject of a digest (-want +got):\n%s", diff)
	}
	r.Signatures = "signatures.example.com:5000/acme/app"
	if got := r.Host(tag); got != "mirror.example.com" {
		t.Errorf("host of a tag: got %s, want the registry of the image", got)
	}
	if got := r.Host(digest); got != "signatures.example.com:5000" {
		t.Errorf("host of a digest: got %s, want the registry of the signatures", got)
	}
}

// One record has every subject of a repository. What proves nothing is not recorded.
func TestRecord(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRoot(&now)
	repository := trust.Subject{Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app"}
	held := map[trust.Subject]trust.Evidence{}
	for _, about := range []trust.Subject{
		{Tag: "v1"}, {Tag: "none"}, {Digest: one}, {Digest: one, Tenant: "team-a"},
	} {
		about.Repository, about.Pulled = repository.Repository, repository.Pulled
		evidence, err := r.Fetch(t.Context(), about, nil)
		if err != nil {
			t.Fatal(err)
		}
		held[about] = evidence
	}
	unsigned := repository
	unsigned.Digest = two
	held[unsigned] = trust.Unsigned{}
	packed, err := r.Pack(held)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Unpack(repository, packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	for about, evidence := range held {
		recorded := about.Tag != "none" && about.Digest != two
		if (found[about] != nil) != recorded {
			t.Errorf("%s for %q: got %v from the record, want recorded %t", about, about.Tenant, found[about], recorded)
		}
		if recorded && !cmp.Equal(found[about].Hints("v1"), evidence.Hints("v1")) {
			t.Errorf("%s: got hints %v, want %v", about, found[about].Hints("v1"), evidence.Hints("v1"))
		}
	}
	if again, err := r.Unpack(repository, packed, held); err != nil || len(again) != 3 {
		t.Errorf("read beside what is held: got %v, %v", again, err)
	} else {
		for about, evidence := range again {
			if evidence != held[about] {
				t.Errorf("%s: the record replaced evidence that is as new", about)
			}
		}
	}
}

// An answer that was given again within the same hour does not change the record.
func TestRecordOfTheSameAnswer(t *testing.T) {
	now := time.Unix(1_800_000_000, 0).Truncate(time.Hour)
	r := newRoot(&now)
	about := trust.Subject{
		Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app", Tag: "v1",
	}
	pack := func() string {
		t.Helper()
		answer, err := r.Fetch(t.Context(), about, nil)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := r.Pack(map[trust.Subject]trust.Evidence{about: answer})
		if err != nil {
			t.Fatal(err)
		}
		return string(packed)
	}
	first := pack()
	now = now.Add(time.Hour - time.Second)
	if got := pack(); got != first {
		t.Errorf("got %s within the hour, want %s", got, first)
	}
	now = now.Add(time.Second)
	if got := pack(); got == first {
		t.Errorf("got %s after the hour, want a later time", got)
	}
}

// A part of a record that cannot be used does not spoil the rest; a record without a usable part is
// a fault.
func TestDamagedRecord(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRoot(&now)
	repository := trust.Subject{Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app"}
	const good = `{"digest":"` + one + `","signatures":"c2lnbmVk"}`
	for name, bad := range map[string]string{
		"a forged signature":     `{"digest":"` + two + `","signatures":"Zm9yZ2Vk"}`,
		"neither tag nor digest": `{"signatures":"c2lnbmVk"}`,
		"tag and digest":         `{"tag":"v1","digest":"` + two + `","signatures":"c2lnbmVk"}`,
		"no digest":              `{"digest":"sha256:1","signatures":"c2lnbmVk"}`,
		"no signatures":          `{"digest":"` + two + `"}`,
		"no answer":              `{"tag":"v1"}`,
		"an answer of nothing":   `{"tag":"v1","answer":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			found, err := r.Unpack(repository, []byte(`{"subjects":[`+bad+`,`+good+`]}`), nil)
			if err != nil || len(found) != 1 {
				t.Errorf("beside a good part: got %v, %v, want the good one", found, err)
			}
			_, err = r.Unpack(repository, []byte(`{"subjects":[`+bad+`]}`), nil)
			var fault *trust.Fault
			if !errors.As(err, &fault) || fault.Reason != v1alpha1.ReasonMetadataInvalid {
				t.Errorf("alone: got %v, want a fault", err)
			}
		})
	}
	if _, err := r.Unpack(repository, []byte("{"), nil); err == nil || !strings.Contains(err.Error(), "decoding") {
		t.Errorf("no JSON: got %v, want a fault of decoding", err)
	}
}

// Evidence of another format is never used.
func TestForeignEvidence(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRoot(&now)
	if got, err := r.Recheck(trust.Subject{Tag: "v1"}, &signature{}); err == nil {
		t.Errorf("a signature as the answer about a tag: got %v, want a fault", got)
	}
}

// refusing is a registry that refuses all credentials.
type refusing struct{}

func (refusing) Resolve(context.Context, string, string) (string, error) {
	return "", trust.NewFault(v1alpha1.ReasonUnauthorized, "refused")
}

func (refusing) Probe(context.Context, string) error {
	return trust.NewFault(v1alpha1.ReasonUnauthorized, "refused")
}

// A registry that refuses the credentials of the trust root is not down if pull secrets are in use:
// it may accept those. If it refuses those of a namespace, the evidence of the namespace ends.
func TestRefusedByTheRegistry(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRoot(&now)
	r.Registry = refusing{}
	if err := r.Probe(t.Context(), "registry.example.com"); err != nil {
		t.Errorf("probe: got %v, want none", err)
	}
	about := trust.Subject{
		Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app", Tag: "v1",
	}
	for tenant, ends := range map[string]bool{"": false, "team-a": true} {
		about.Tenant = tenant
		_, err := r.Fetch(t.Context(), about, nil)
		if f := trust.AsFault(err, ""); f.Reason != v1alpha1.ReasonUnauthorized || f.Ends != ends {
			t.Errorf("fetch for %q: got %v that ends what is held: %t, want a refusal, and %t", tenant, err,
				f.Ends, ends)
		}
	}
	if instead, ok := r.Tenant(trust.Subject{Tag: "v1"}, "team-b"); !ok || instead.Tenant != "team-b" ||
		instead.Tag != "v1" {
		t.Errorf("tenant: got %v, %t, want the tag for team-b", instead, ok)
	}
	r.Keychain = nil
	if err := r.Probe(t.Context(), "registry.example.com"); err == nil {
		t.Error("probe without pull secrets: got none, want a fault")
	}
	if _, ok := r.Tenant(trust.Subject{}, "team-b"); ok {
		t.Error("got a tenant without pull secrets in use")
	}
}

// Without pull secrets in use, nothing of a tenant is fetched, and nothing is read from its record.
func TestThreatNoTenantWithoutPullSecrets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRoot(&now)
	repository := trust.Subject{Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app"}
	about := repository
	about.Digest, about.Tenant = one, "team-a"
	evidence, err := r.Fetch(t.Context(), about, nil)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := r.Pack(map[trust.Subject]trust.Evidence{about: evidence})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := r.Unpack(repository, packed, nil); err != nil || len(found) != 1 {
		t.Fatalf("got %v, %v, want the evidence of team-a", found, err)
	}
	r.Keychain = nil
	if found, err := r.Unpack(repository, packed, nil); err != nil || len(found) != 0 {
		t.Errorf("without pull secrets: got %v, %v, want nothing", found, err)
	}
	if got, err := r.Fetch(t.Context(), about, nil); !trust.AsFault(err, "").Ends {
		t.Errorf("without pull secrets: got %v, %v, want a fault that ends what is held", got, err)
	}
}
