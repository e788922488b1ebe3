//go:build clients

package clients

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// What skopeo signs while it copies is signed here, by tag and by digest, and by no other name.
// skopeo's own policy agrees.
func TestSkopeoCopy(t *testing.T) {
	b := newBed(t)
	ci, qa := b.key("ci", "rsa3072", "default", "never"), b.key("qa", "rsa2048", "default", "1y")
	root := b.root(nil, map[string]string{"ci": b.export(ci), "qa": b.export(qa)})
	digest := b.push("acme/build:v1")
	want := func(image string, roles ...string) {
		t.Helper()
		if got := b.signed(root, image); !slices.Equal(got, roles) {
			t.Errorf("%s: got signed by %v, want by %v", image, got, roles)
		}
		accepted := b.accepts(image, b.export(qa), `{"type":"matchRepoDigestOrExact"}`)
		if accepted != slices.Contains(roles, "qa") {
			t.Errorf("%s: skopeo accepts it: %v, and qa has signed: %v", image, accepted, roles)
		}
	}
	b.copy("acme/build:v1", "acme/app:v1", "--sign-by", ci)
	want("acme/app:v1", "ci")
	b.copy("acme/app:v1", "acme/app:v1", "--sign-by", qa) // the signatures of the source stay
	want("acme/app:v1", "ci", "qa")
	want("acme/app@"+digest, "ci", "qa")
	want("acme/build:v1") // the same image under another name
	b.copy("acme/build:v1", "acme/app:v2")
	if got := b.signed(root, "acme/app:v2"); got != nil {
		t.Errorf("acme/app:v2: got signed by %v, want by none: it is the same image under another tag", got)
	}
}

// The rules for the name decide as skopeo's policy does.
func TestSkopeoIdentities(t *testing.T) {
	b := newBed(t)
	ci := b.key("ci", "ed25519", "default", "never")
	digest := b.push("acme/build:v1")
	b.copy("acme/build:v1", "acme/app:v1", "--sign-by", ci)
	b.copy("acme/app:v1", "acme/app:v2", "--remove-signatures")
	b.copy("acme/app:v1", "mirror/app:v1", "--remove-signatures")
	signature := filepath.Join(b.sigs, "acme/app@"+strings.Replace(digest, ":", "=", 1), "signature-1")
	b.put("mirror/app", digest, 1, b.run("cat", signature))
	b.put("acme/app", digest, 1, b.run("cat", signature))
	for name, tt := range map[string]struct {
		policy string
		spec   v1alpha1.SignedIdentity
	}{
		"default":         {`{"type":"matchRepoDigestOrExact"}`, v1alpha1.SignedIdentity{}},
		"MatchExact":      {`{"type":"matchExact"}`, v1alpha1.SignedIdentity{Type: "MatchExact"}},
		"MatchRepository": {`{"type":"matchRepository"}`, v1alpha1.SignedIdentity{Type: "MatchRepository"}},
		"ExactReference": {
			`{"type":"exactReference","dockerReference":"` + b.name("acme/app:v1") + `"}`,
			v1alpha1.SignedIdentity{Type: "ExactReference", Reference: b.name("acme/app:v1")},
		},
		"ExactRepository": {
			`{"type":"exactRepository","dockerRepository":"` + b.name("acme/app") + `"}`,
			v1alpha1.SignedIdentity{Type: "ExactRepository", Repository: b.name("acme/app")},
		},
		"RemapIdentity": {
			`{"type":"remapIdentity","prefix":"` + b.name("mirror") + `","signedPrefix":"` + b.name("acme") + `"}`,
			v1alpha1.SignedIdentity{Type: "RemapIdentity", Prefix: b.name("mirror"), SignedPrefix: b.name("acme")},
		},
	} {
		root := b.root(func(s *v1alpha1.SimpleSigningSpec) { s.SignedIdentity = &tt.spec },
			map[string]string{"ci": b.export(ci)})
		counted := 0
		for _, image := range []string{
			"acme/app:v1", "acme/app:v2", "acme/app@" + digest, "mirror/app:v1", "mirror/app@" + digest,
		} {
			got, accepted := len(b.signed(root, image)) == 1, b.accepts(image, b.export(ci), tt.policy)
			if got != accepted {
				t.Errorf("%s: %s: got signed: %v, and skopeo accepts it: %v", name, image, got, accepted)
			}
			if got {
				counted++
			}
		}
		if counted == 0 {
			t.Errorf("%s: got no image signed, want some", name)
		}
	}
}

// What gpg signs with a subkey counts, and no longer once the subkey or the key is revoked, or has
// expired. What skopeo signs apart from a copy counts too.
func TestSubkeysAndRevocation(t *testing.T) {
	b := newBed(t)
	digest := b.push("acme/app:v1")
	payload := b.write("payload", `{"critical":{"identity":{"docker-reference":"`+b.name("acme/app:v1")+`"},"image":`+
		`{"docker-manifest-digest":"`+digest+`"},"type":"atomic container signature"},"optional":{}}`)
	sign := func(by string) {
		t.Helper()
		b.put("acme/app", digest, 1, b.gpg("--local-user", by, "--output", "-", "--sign", payload))
	}
	check := func(what, id string, signed bool) {
		t.Helper()
		got := b.signed(b.root(nil, map[string]string{"ci": b.export(id)}), "acme/app:v1")
		if (len(got) == 1) != signed {
			t.Errorf("%s: got signed by %v, want signed: %v", what, got, signed)
		}
	}
	id := b.key("ci", "ed25519", "cert", "never")
	b.gpg("--quick-add-key", id, "rsa2048", "sign", "never")
	sign(id)
	check("a subkey", id, true)
	revoke := func(commands string) {
		t.Helper()
		file := b.write("commands", commands)
		b.run("bash", "-c", "gpg --no-tty --command-fd 0 --status-fd 2 --pinentry-mode loopback --passphrase '' "+
			"--edit-key "+id+" <"+file)
	}
	revoke("key 1\nrevkey\ny\n3\n\ny\nsave\n")
	check("a revoked subkey", id, false)

	id = b.key("qa", "ed25519", "default", "never")
	sign(id)
	check("a primary key", id, true)
	b.gpg("--quick-set-expire", id, "1d")
	check("a key that will expire", id, true)
	b.ahead = 48 * time.Hour
	check("an expired key", id, false)
	b.ahead = 0

	id = b.key("emea", "ed25519", "default", "never")
	sign(id)
	revocation := filepath.Join(b.home, "openpgp-revocs.d", id+".rev")
	b.run("sed", "-i", "s/^:-----/-----/", revocation)
	b.gpg("--import", revocation)
	check("a revoked key", id, false)

	id = b.key("apac", "ed25519", "default", "never")
	manifest, output := b.write("manifest", b.must(b.skopeo("inspect", "--raw", "--cert-dir", b.config,
		"docker://"+b.name("acme/app:v1")))), filepath.Join(b.config, "standalone")
	b.must(b.skopeo("standalone-sign", manifest, b.name("acme/app:v1"), id, "--output", output))
	b.put("acme/app", digest, 1, b.run("cat", output))
	check("skopeo standalone-sign", id, true)
}

func (b *bed) must(out string, err error) string {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	return out
}
