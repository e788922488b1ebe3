package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/internal/trust"
)

// secret is the material of the Secret "pull".
func secret(entries map[string]string) trust.Material {
	m := trust.Material{}
	for key, value := range entries {
		m[v1alpha1.KeySource{Kind: "Secret", Name: "pull", Key: key}] = value
	}
	return m
}

func pulling(host string) []v1alpha1.Registry {
	return []v1alpha1.Registry{{Host: host, CredentialsSecretRef: &v1alpha1.SecretReference{Name: "pull"}}}
}

// Credentials are found in both types of Secrets, in every form that Docker's clients write.
func TestCredentialsOfRegistries(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("reader:s3:cret"))
	entry := func(host string) string { return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth) }
	for name, c := range map[string]struct {
		host    string
		entries map[string]string
	}{
		"basic-auth": {"registry.example.com", map[string]string{"username": "reader\n", "password": "s3:cret\r\n"}},
		"docker config": {
			"registry.example.com:5000", map[string]string{".dockerconfigjson": entry("registry.example.com:5000")},
		},
		"by its fields": {"registry.example.com", map[string]string{
			".dockerconfigjson": `{"auths":{"registry.example.com":{"username":"reader","password":"s3:cret"}}}`,
		}},
		"as a URL": {
			"registry.example.com", map[string]string{".dockerconfigjson": entry("https://registry.example.com/v2/")},
		},
		"Docker Hub": {
			"docker.io", map[string]string{".dockerconfigjson": entry("https://index.docker.io/v1/")},
		},
		"Docker Hub, its name": {"docker.io", map[string]string{".dockerconfigjson": entry("docker.io")}},
		"both, the config wins": {
			"docker.io", map[string]string{".dockerconfigjson": entry("docker.io"), "username": "x", "password": "y"},
		},
	} {
		settings, _, err := Settings(pulling(c.host), secret(c.entries))
		if got := settings[c.host]; err != nil || got.Username != "reader" || got.Password != "s3:cret" {
			t.Errorf("%s: got %q, %q and %v, want the credentials", name, got.Username, got.Password, err)
		}
	}
}

// Unusable credentials name the field and the Secret, and show nothing of what it holds.
func TestThreatUnusableCredentialsAreNotShown(t *testing.T) {
	const password = "s3cret"
	for name, c := range map[string]struct {
		entries      map[string]string
		reason, says string
	}{
		"empty":       {nil, v1alpha1.ReasonReferenceNotFound, "neither an entry"},
		"no password": {map[string]string{"username": "reader"}, v1alpha1.ReasonReferenceNotFound, "neither an entry"},
		"not JSON":    {map[string]string{".dockerconfigjson": password}, v1alpha1.ReasonInvalidSpec, "is no JSON"},
		"another host": {
			map[string]string{
				".dockerconfigjson": `{"auths":{"registry.example.com.evil":{"auth":"` + password + `"}}}`,
			}, v1alpha1.ReasonReferenceNotFound, "has no credentials for",
		},
		"one repository": {
			map[string]string{
				".dockerconfigjson": `{"auths":{"registry.example.com/acme":{"auth":"` + password + `"}}}`,
			}, v1alpha1.ReasonReferenceNotFound, "has no credentials for",
		},
		"no base64": {
			map[string]string{".dockerconfigjson": `{"auths":{"registry.example.com":{"auth":"` + password + `"}}}`},
			v1alpha1.ReasonInvalidSpec, `has an "auth" that is not the base64 of user:password`,
		},
		"a token": {
			map[string]string{
				".dockerconfigjson": `{"auths":{"registry.example.com":{"identitytoken":"` + password + `"}}}`,
			}, v1alpha1.ReasonInvalidSpec, "other kinds of credentials",
		},
		"a token beside a password": {
			map[string]string{
				".dockerconfigjson": `{"auths":{"registry.example.com":{"username":"reader","password":"` + password +
					`","identitytoken":"t"}}}`,
			}, v1alpha1.ReasonInvalidSpec, "other kinds of credentials",
		},
		"a number instead": {
			map[string]string{
				".dockerconfigjson": `{"auths":{"registry.example.com":{"auth":1}},"` + password + `":0}`,
			}, v1alpha1.ReasonInvalidSpec, "is no JSON object with credentials",
		},
	} {
		_, _, err := Settings(pulling("registry.example.com"), secret(c.entries))
		fault, ok := errors.AsType[*trust.Fault](err)
		if !ok || fault.Reason != c.reason ||
			!strings.HasPrefix(err.Error(), "spec.registries[0].credentialsSecretRef (Secret pull): ") ||
			!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: got %v, want %s, with the field and %q, and without the password", name, err, c.reason,
				c.says)
		}
	}
}

// Settings of a TrustRoot read a real registry that requires a password; without, they are told
// which field sets it.
func TestSettingsReadARegistry(t *testing.T) {
	t.Parallel()
	server := distribution.Run(t, distribution.Options{Username: "reader", Password: "s3cret"})
	p := push(t, server.Host, server.Options(t.Context())...)
	spec := pulling(server.Host)
	odd := tlstest.OddCertificate(server.CA.PEM)
	spec[0].CABundle = v1alpha1.RegistryCABundle(string(odd) + string(server.CA.PEM))
	settings, notes, err := Settings(spec, secret(map[string]string{"username": "reader", "password": "s3cret"}))
	if err != nil || len(notes) != 1 ||
		!strings.HasPrefix(notes[0], "spec.registries[0].caBundle: skipped certificate 1") {
		t.Fatalf("got notes %q and %v, want the skipped certificate", notes, err)
	}
	read := func(settings map[string]Config) (Manifest, error) {
		images, err := NewImages(ImagesConfig{Registries: settings})
		if err != nil {
			t.Fatal(err)
		}
		return images.Tagged(t.Context(), p.repository, "v1")
	}
	if m, err := read(settings); err != nil || m.Digest != p.digest || string(m.Body) != p.manifest {
		t.Errorf("got %s and %v, want the manifest %s", m.Digest, err, p.digest)
	}
	spec[0].CredentialsSecretRef = nil
	settings, _, err = Settings(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	fault, ok := errors.AsType[*trust.Fault](func() error { _, err := read(settings); return err }())
	if !ok || fault.Reason != v1alpha1.ReasonUnauthorized ||
		!strings.Contains(fault.Error(), "set spec.registries[].credentialsSecretRef") {
		t.Errorf("without credentials: got %v, want Unauthorized, with the field", fault)
	}
}

// Of several spellings of a host, the same one counts each time: the host itself if it is there.
func TestSpellingsOfAHost(t *testing.T) {
	const spellings = `{"auths":{
		"https://registry.example.com/v2":{"username":"third","password":"c"},
		"https://registry.example.com":{"username":"second","password":"b"}`
	for content, want := range map[string]string{
		spellings + `}}`: "second",
		spellings + `,"registry.example.com":{"username":"first","password":"a"}}}`: "first",
	} {
		for range 50 {
			username, _, found, err := dockerCredentials(content, "registry.example.com")
			if username != want || !found || err != nil {
				t.Fatalf("got user %q, found %t, %v, want %q", username, found, err, want)
			}
		}
	}
}

// Pods name more registries than clients are kept. That does not evict the client of a registry in
// the configuration, with its connections and tokens.
func TestThreatMadeUpRegistriesEvictNoConfiguredOne(t *testing.T) {
	images, err := NewImages(ImagesConfig{Registries: map[string]Config{"registry.example.com": {}}})
	if err != nil {
		t.Fatal(err)
	}
	client := func(host string) *Client {
		t.Helper()
		c, err := images.client(host)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	configured, madeUp := client("registry.example.com"), client("0.example.com")
	for n := range 2 * maxClients {
		client(fmt.Sprintf("%d.example.com", n))
	}
	if client("registry.example.com") != configured {
		t.Error("got another client of the configured registry, want the same one")
	}
	if client("0.example.com") == madeUp || images.clients.Len() != maxClients {
		t.Errorf("got %d clients of other registries, want the latest %d", images.clients.Len(), maxClients)
	}
}
