package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/cosign"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
)

// TestSigstore follows docs/sigstore.md with the real cosign and a registry that requires a
// password, from the keys to an admitted Pod. Then it restarts the manager without the registry.
func TestSigstore(t *testing.T) {
	t.Parallel()
	b := restarts{newBed(t), t}
	images := distribution.Run(t, distribution.Options{Username: "countersign", Password: "s3cret"})
	client := cosign.NewClient(t, images.CA)
	must(t, client.Login(images.Host, "countersign", "s3cret"))
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "sigstore.md"))
	must(t, err)
	page, _, _ := strings.Cut(string(text), "\n## Identities instead of keys\n")
	both := push(t, images, "both")
	commands := 0
	for _, line := range regexp.MustCompile(`(?m)^\$ cosign (.*)$`).FindAllStringSubmatch(page, -1) {
		_, err := client.Run(t.Context(),
			strings.Fields(strings.ReplaceAll(line[1], "REPOSITORY@DIGEST", both.digest))...)
		must(t, err)
		commands++
	}
	if commands != 4 {
		t.Errorf("got %d cosign commands in the page, want 4", commands)
	}
	keys := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "cosign-keys"}, Data: map[string]string{},
	}
	for _, file := range []string{"ci.pub", "qa.pub"} {
		public, err := os.ReadFile(filepath.Join(client.Dir, file))
		must(t, err)
		keys.Data[file] = string(public)
	}
	b.create(t, keys)
	login, err := os.ReadFile(filepath.Join(client.Dir, "config.json"))
	must(t, err)
	b.create(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operator.Namespace, Name: "pull"},
		Type:       corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: login},
	})
	manifests := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1)
	root, policy := &v1alpha1.TrustRoot{}, &v1alpha1.ImagePolicy{}
	must(t, yaml.UnmarshalStrict([]byte(manifests[0][1]), root))
	must(t, yaml.UnmarshalStrict([]byte(manifests[1][1]), policy))
	root.Spec.Registries[0].Host = images.Host
	root.Spec.Registries[0].CABundle = v1alpha1.RegistryCABundle(images.CA.PEM)
	root.Spec.ResolveInterval = &metav1.Duration{Duration: time.Millisecond} // each answer is soon an older one
	policy.Spec.Images = []v1alpha1.ImagePattern{v1alpha1.ImagePattern(images.Host + "/acme/**")}
	b.create(t, root)
	b.create(t, policy)
	b.ready(t, &v1alpha1.TrustRoot{}, root.Name, metav1.ConditionTrue, v1alpha1.ReasonPinned)
	b.ready(t, &v1alpha1.ImagePolicy{}, policy.Name, metav1.ConditionTrue, v1alpha1.ReasonInForce)

	ciOnly, none, moved := push(t, images, "ci-only"), push(t, images, "none"), push(t, images, "moved")
	must(t, client.Sign(t.Context(), ciOnly.digest, "ci", cosign.TagLayout))
	for _, layout := range cosign.Layouts() { // each role in another one
		must(t, client.Sign(t.Context(), moved.digest, map[string]string{"tag": "ci", "bundle": "qa"}[layout], layout))
	}
	for _, image := range []pushed{both, moved} {
		p := pod(production, image.tag)
		b.admitted(t, p)
		if got, want := p.Spec.Containers[0].Image, image.tag+"@"+image.hash(); got != want {
			t.Errorf("%s: got image %s, want it pinned to %s", image.tag, got, want)
		}
		b.admitted(t, pod(production, image.digest))
	}
	b.denied(t, pod(production, ciOnly.tag), http.StatusForbidden, `role "qa" has not signed`, "signed by ci",
		`is a key of "ci" alone`)
	b.denied(t, pod(production, ciOnly.digest), http.StatusForbidden, `role "qa" has not signed`)
	b.denied(t, pod(production, none.tag), http.StatusForbidden, `role "ci" has not signed`)

	repository, _, _ := strings.Cut(both.digest, "@")
	b.written(t, repository, nil)
	b.requested(t, images.Host, "ok")
	b.restart(t, func() { must(t, images.Stop()) })
	b.admitted(t, pod(production, both.digest))
	b.admittedByOlderAnswer(t, both)
	b.denied(t, pod(production, ciOnly.digest), http.StatusServiceUnavailable, `role "qa" has not signed`,
		"could not be asked for newer signatures")
	b.denied(t, pod(production, none.digest), http.StatusServiceUnavailable, `TrustRoot "acme-sigstore"`)
	b.requested(t, images.Host, v1alpha1.ReasonUnreachable)
}

// admittedByOlderAnswer checks that a tag is admitted with a warning, for the digest that the
// registry named before it was down.
func (b restarts) admittedByOlderAnswer(t *testing.T, image pushed) {
	t.Helper()
	c, warned := b.withWarnings(t)
	p := pod(production, image.tag)
	must(t, c.Create(t.Context(), p))
	if got, want := p.Spec.Containers[0].Image, image.tag+"@"+image.hash(); got != want {
		t.Errorf("got image %s, want it pinned to %s", got, want)
	}
	got, want := strings.Join(warned.drain(), "\n"), []string{
		`admitted for the digest that its registry named for the tag "both" at `, `(TrustRoot "acme-sigstore")`,
		"the registry could not be queried again: ",
	}
	for _, part := range want {
		if !strings.Contains(got, part) {
			t.Errorf("got the warnings %q, want %q in them", got, part)
		}
	}
}

// requested checks that the manager counts requests to a host with a result.
func (b *bed) requested(t *testing.T, host, result string) {
	t.Helper()
	series := fmt.Sprintf("countersign_registry_requests_total{host=%q,result=%q}", host, result)
	if got := b.scrape(t)[series]; got < 1 {
		t.Errorf("got %s %v, want at least 1", series, got)
	}
}

// pushed is an image in a registry, by its tag and by its digest.
type pushed struct{ tag, digest string }

func (p pushed) hash() string {
	_, hash, _ := strings.Cut(p.digest, "@")
	return hash
}

// push pushes an image as acme/app with a tag.
func push(t *testing.T, to *distribution.Server, tag string) pushed {
	t.Helper()
	return pushAs(t, to, "acme/app", tag)
}

// pushAs pushes an image with a name and a tag.
func pushAs(t *testing.T, to *distribution.Server, path, tag string) pushed {
	t.Helper()
	ref, err := name.NewTag(to.Host + "/" + path + ":" + tag)
	must(t, err)
	image, err := random.Image(64, 1)
	must(t, err)
	must(t, remote.Write(ref, image, to.Options(t.Context())...))
	digest, err := image.Digest()
	must(t, err)
	return pushed{tag: ref.Name(), digest: ref.Context().Digest(digest.String()).Name()}
}
