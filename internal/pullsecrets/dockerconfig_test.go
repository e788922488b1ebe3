package pullsecrets

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func dockerConfigJSON(content string) *corev1.Secret {
	return &corev1.Secret{
		Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(content)},
	}
}

// The entries match as those of the kubelet do.
func TestMatching(t *testing.T) {
	for name, test := range map[string]struct {
		entries    []string
		repository string
		want       []string
	}{
		"host": {
			[]string{"registry.example.com"}, "registry.example.com/acme/app", []string{"registry.example.com"},
		},
		"https": {
			[]string{"https://registry.example.com"}, "registry.example.com/app",
			[]string{"https://registry.example.com"},
		},
		"path of the API": {
			[]string{"https://registry.example.com/v2/"}, "registry.example.com/app",
			[]string{"https://registry.example.com/v2/"},
		},
		"another host":       {[]string{"registry.example.com"}, "registry.example.org/acme/app", nil},
		"host inside a host": {[]string{"example.com"}, "registry.example.com/acme/app", nil},
		"host as a suffix":   {[]string{"registry.example.com"}, "registry.example.com.evil.example.org/acme/app", nil},
		"host at the start":  {[]string{"registry.example.com.example.org"}, "registry.example.com/acme/app", nil},
		"host as a path":     {[]string{"registry.example.com"}, "evil.example.org/registry.example.com/app", nil},
		"port": {
			[]string{"registry.example.com:5000"}, "registry.example.com:5000/app",
			[]string{"registry.example.com:5000"},
		},
		"another port": {[]string{"registry.example.com:5000"}, "registry.example.com:5001/app", nil},
		"no port":      {[]string{"registry.example.com"}, "registry.example.com:5000/app", nil},
		"longest first": {
			[]string{"registry.example.com", "registry.example.com/acme/app", "registry.example.com/acme"},
			"registry.example.com/acme/app",
			[]string{"registry.example.com/acme/app", "registry.example.com/acme", "registry.example.com"},
		},
		"another path":          {[]string{"registry.example.com/acme"}, "registry.example.com/other/app", nil},
		"wildcard":              {[]string{"*.example.com"}, "registry.example.com/app", []string{"*.example.com"}},
		"wildcard of one label": {[]string{"*.example.com"}, "a.b.example.com/app", nil},
		"wildcard with a port":  {[]string{"*.example.com"}, "registry.example.com:5000/app", nil},
		"wildcard in a label": {
			[]string{"registry-*.example.com"}, "registry-1.example.com/app", []string{"registry-*.example.com"},
		},
		"every single label": {[]string{"*"}, "registry.example.com/app", nil},
		"invalid wildcard":   {[]string{"[.example.com"}, "registry.example.com/app", nil},
		"docker.io":          {[]string{"docker.io"}, "docker.io/library/nginx", []string{"docker.io"}},
		"Docker's own spelling": {
			[]string{"https://index.docker.io/v1/"}, "docker.io/library/nginx", []string{"https://index.docker.io/v1/"},
		},
		"Docker's own spelling of another registry": {
			[]string{"https://index.docker.io/v1/"}, "registry.example.com/library/nginx", nil,
		},
		"both of Docker's spellings": {
			[]string{"https://index.docker.io/v1/", "docker.io"}, "docker.io/library/nginx", []string{"docker.io"},
		},
		"a part of Docker's own spelling": {
			[]string{"https://index.docker.io/acme/"}, "docker.io/acme/app", nil,
		},
		"not a URL": {[]string{"%zz", ""}, "registry.example.com/app", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var auths []string
			for _, e := range test.entries {
				auths = append(auths, fmt.Sprintf(`%q: {"username": %q, "password": "p"}`, e, e))
			}
			all, err := readSecret(dockerConfigJSON(`{"auths": {` + strings.Join(auths, ",") + `}}`))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range matching(all, test.repository) {
				got = append(got, e.username)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("entries for %s (-want +got):\n%s", test.repository, diff)
			}
		})
	}
}

func TestReadSecret(t *testing.T) {
	const secret = "s3cret-passw0rd"
	auth := base64.StdEncoding.EncodeToString([]byte("reader:" + secret))
	dockercfg := &corev1.Secret{
		Type: corev1.SecretTypeDockercfg,
		Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"r.example.com": {"auth": "` + auth + `"}}`)},
	}
	opaque := dockerConfigJSON(`{"auths": {"r.example.com": {"auth": "` + auth + `"}}}`)
	opaque.Type = corev1.SecretTypeOpaque
	of := func(entry string) *corev1.Secret {
		return dockerConfigJSON(`{"auths": {"r.example.com": ` + entry + `}}`)
	}
	for name, test := range map[string]struct {
		secret             *corev1.Secret
		username, password string
		unusable           string // of the entry, or of the whole
	}{
		"user name and password": {of(`{"username": "reader", "password": "` + secret + `"}`), "reader", secret, ""},
		"auth":                   {of(`{"auth": "` + auth + `"}`), "reader", secret, ""},
		"auth without padding":   {of(`{"auth": "` + strings.TrimRight(auth, "=") + `"}`), "reader", secret, ""},
		"auth first": {
			of(`{"username": "x", "password": "y", "auth": "` + auth + `"}`), "reader", secret, "",
		},
		"dockercfg":             {dockercfg, "reader", secret, ""},
		"auth without a colon":  {of(`{"auth": "` + secret + `"}`), "", "", "base64 of user:password"},
		"identity token":        {of(`{"identitytoken": "` + secret + `"}`), "", "", "no other kind of credentials"},
		"no object":             {of(`"` + secret + `"`), "", "", "no JSON object"},
		"another type":          {opaque, "", "", `has the type "Opaque"`},
		"no JSON":               {dockerConfigJSON(`{"auths": ` + secret), "", "", "is no JSON"},
		"no list of registries": {dockerConfigJSON(`{"auths": ["` + secret + `"]}`), "", "", "docker login"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := readSecret(test.secret)
			got := entry{}
			if len(all) == 1 {
				got = all[0]
			}
			if err != nil {
				got.unusable = err.Error()
			}
			if got.username != test.username || got.password != test.password {
				t.Errorf("got user %q, password %q, want %q, %q", got.username, got.password, test.username,
					test.password)
			}
			if !strings.Contains(got.unusable, test.unusable) || (test.unusable == "") != (got.unusable == "") {
				t.Errorf("got the problem %q, want %q in it", got.unusable, test.unusable)
			}
			if strings.Contains(got.unusable, secret) {
				t.Errorf("got the secret in %q", got.unusable)
			}
		})
	}
	if all, err := readSecret(dockerConfigJSON(`{}`)); err != nil || len(all) != 0 {
		t.Errorf("without auths: got %v, %v, want no entries", all, err)
	}
}

// Any content is read without a panic, and a match has the host of the repository.
func FuzzReadSecret(f *testing.F) {
	f.Add(`{"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "*.example.com/a": {"username": "a"}}}`,
		"docker.io/library/nginx")
	f.Add(`{"auths": {"registry.example.com:5000": {}}}`, "registry.example.com:5000/acme/app")
	f.Fuzz(func(t *testing.T, content, repository string) {
		all, err := readSecret(dockerConfigJSON(content))
		if err != nil {
			return
		}
		host, _, _ := strings.Cut(repository, "/")
		for _, e := range matching(all, repository) {
			if !matchesHost(e.host, host) && (host != "docker.io" || e.host != dockerHub) {
				t.Errorf("the entry of %q matches %q", e.host, repository)
			}
			if strings.Count(e.host, ".") != strings.Count(host, ".") && host != "docker.io" {
				t.Errorf("the entry of %q matches %q, which has another number of labels", e.host, repository)
			}
		}
	})
}
