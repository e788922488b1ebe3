package sigstore

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust/sigstore/trustedroot"
)

// ofModule reads a file of the module of sigstore-go.
func ofModule(t *testing.T, path string) []byte {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/sigstore/sigstore-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// claimOf returns the claim of a bundle about anything.
func claimOf(t *testing.T, data []byte) *claim {
	t.Helper()
	b, m, err := parseBundle(data)
	if err != nil {
		t.Fatal(err)
	}
	content, err := b.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	return &claim{
		signature: content.Signature(), material: m,
		content:  func(string) (verify.SignatureContent, error) { return content, nil },
		signedBy: func(k *key) bool { return verify.VerifySignature(content, byKey{}, keyOnly(k)) == nil },
	}
}

// What the public instance of Sigstore has issued is verified with its trusted root, and with no
// other.
func TestPublicInstance(t *testing.T) {
	t.Parallel()
	const (
		examples = "examples/"
		data     = "pkg/testing/data/"
		actions  = "https://token.actions.githubusercontent.com"
		workflow = "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"
	)
	public := ofModule(t, examples+"trusted-root-public-good.json")
	for file, want := range map[string]string{
		examples + "bundle-provenance.json":                         "2023-04-18T17:45:12Z",
		data + "bundles/sigstore.js@2.0.0-provenance.sigstore.json": "2023-08-18T16:05:35Z",
	} {
		c := claimOf(t, ofModule(t, file))
		for name, trusted := range map[string][]byte{"public": public, "other": newIdentityBed(t).TrustedRoot()} {
			tr := newIdentityBed(t).withTrusted("", identityRole("ci", 1, exactly(actions, workflow)))
			root := buildWith(t, tr, trusted)
			p, err := root.Verifier.(*verifier).prove(c)
			if err != nil {
				t.Fatal(err)
			}
			_, counts := root.roles.all[0].signer(p)
			if counts != (name == "public") {
				t.Errorf("%s with the %s trusted root: got %+v, want it to count: %t", file, name, p, name == "public")
			}
			if got := p.time.UTC().Format(time.RFC3339); counts && got != want {
				t.Errorf("%s: got the time %s, want %s", file, got, want)
			}
		}
	}
	// The example of a bundle by a key has a key of the registry of npm.
	c := claimOf(t, ofModule(t, examples+"bundle-publish.json"))
	tr := newIdentityBed(t).withTrusted(v1alpha1.TransparencyLogRequire,
		keyRole("ci", 1, string(ofModule(t, examples+"publish_key.pub"))))
	p, err := buildWith(t, tr, public).Verifier.(*verifier).prove(c)
	if err != nil || p.key == "" || !p.listed || p.whyKey != "" || p.time.IsZero() {
		t.Errorf("by a key: got %+v and %v, want it to count, with a time", p, err)
	}
}

// What sigstore-go's own certificate authority and log make counts too.
func TestVirtualInstance(t *testing.T) {
	t.Parallel()
	virtual, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	entity, err := virtual.Attest("ci@example.com", testIssuer, []byte(`{"_type":"https://in-toto.io/Statement/v1"}`))
	if err != nil {
		t.Fatal(err)
	}
	content, err := entity.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := entity.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := entity.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	stamps, err := entity.Timestamps()
	if err != nil {
		t.Fatal(err)
	}
	m := &material{leaf: content.Certificate(), timestamps: stamps}
	for _, e := range entries {
		entry := e.TransparencyLogEntry() // which lacks what the bundle of a client has
		promise, err := virtual.RekorSignPayload(tlog.RekorPayload{
			Body: e.Body(), IntegratedTime: e.IntegratedTime().Unix(), LogIndex: e.LogIndex(),
			LogID: hex.EncodeToString([]byte(e.LogKeyID())),
		})
		if err != nil {
			t.Fatal(err)
		}
		entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
		entry.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
		m.entries = append(m.entries, entry)
	}
	c := &claim{
		signature: signed.Signature(), material: m,
		content:  func(string) (verify.SignatureContent, error) { return signed, nil },
		signedBy: func(k *key) bool { return verify.VerifySignature(signed, byKey{}, keyOnly(k)) == nil },
	}
	bed := newIdentityBed(t)
	tr := bed.withTrusted("", identityRole("ci", 1, exactly(testIssuer, "ci@example.com")))
	v := buildWith(t, tr, bed.TrustedRoot()).Verifier.(*verifier)
	if p, err := v.prove(c); err != nil || p.key != "" {
		t.Errorf("with another trusted root: got %+v and %v, want nothing", p, err)
	}
	trusted, err := trustedroot.Parse(trustedRootOf(t, virtual))
	if err != nil {
		t.Fatal(err)
	}
	v.trusted = func() (*trustedroot.Root, error) { return trusted, nil }
	p, err := v.prove(c)
	if err != nil || p.identity.Subject != "ci@example.com" || p.time.IsZero() || p.whyIdentity != "" {
		t.Errorf("got %+v and %v, want the identity, and a time", p, err)
	}
}

// trustedRootOf returns the trusted_root.json of an instance. Its certificates have no SCT.
func trustedRootOf(t *testing.T, virtual *ca.VirtualSigstore) []byte {
	t.Helper()
	logs := virtual.RekorLogs()
	for id, log := range logs {
		var err error
		if log.ID, err = hex.DecodeString(id); err != nil {
			t.Fatal(err)
		}
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, virtual.FulcioCertificateAuthorities(), nil,
		virtual.TimestampingAuthorities(), logs)
	if err != nil {
		t.Fatal(err)
	}
	text, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
