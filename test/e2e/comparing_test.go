package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// comparing is a controller that owns one Pod. If the Pod's image differs from its own spec, it
// deletes the Pod and creates another.
type comparing struct {
	*bed
	owner *corev1.ConfigMap
	image string
}

func (c *comparing) reconcile(t *testing.T) types.UID {
	t.Helper()
	want := running(production, c.owner.Name, c.image)
	want.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: c.owner.Name, UID: c.owner.UID, Controller: new(true)},
	}
	got := &corev1.Pod{}
	err := c.Get(t.Context(), client.ObjectKeyFromObject(want), got)
	switch {
	case err == nil && got.Spec.Containers[0].Image == c.image:
		return got.UID
	case err == nil:
		must(t, c.Delete(t.Context(), got, client.Preconditions{UID: &got.UID}))
	case !apierrors.IsNotFound(err):
		must(t, err)
	}
	c.admitted(t, want)
	return want.UID
}

// pods sets the controller's image, and returns how many different Pods it has in four rounds.
func (c *comparing) pods(t *testing.T, image string) int {
	t.Helper()
	c.image = image
	c.reconcile(t)
	uids := map[types.UID]bool{}
	for range 4 {
		uids[c.reconcile(t)] = true
	}
	return len(uids)
}

// comparingDocs reads the two solutions for such controllers from the documentation: the reference
// with a digest, and the manifests of a policy and of its twin that does not pin.
func comparingDocs(t *testing.T) (image, policy, twin string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/spec/imagepolicy.md")
	must(t, err)
	_, section, _ := strings.Cut(string(page), "\n### Controllers that compare their Pods\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 2 {
		t.Fatalf("got %d manifests in the section on controllers that compare their Pods, want 2", len(blocks))
	}
	var source struct{ Spec struct{ Image string } }
	must(t, yaml.Unmarshal([]byte(blocks[0][1]), &source))
	policy, twin, ok := strings.Cut(blocks[1][1], "\n---\n")
	if !ok || !strings.Contains(source.Spec.Image, "@sha256:") {
		t.Fatalf("got image %q and policies\n%s\nwant an image with a digest, and two policies", source.Spec.Image,
			blocks[1][1])
	}
	return source.Spec.Image, policy, twin
}

// testComparing runs such a controller under two policies that pin.
func (b *bed) testComparing(t *testing.T) {
	pinned, divided, twin := comparingDocs(t)
	tagged, digest, _ := strings.Cut(pinned, "@sha256:")
	gun := strings.TrimSuffix(tagged, ":v1")
	_, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
	must(t, err)
	must(t, b.signer.AddHash(t.Context(), gun, "v1", 512, digest, "targets/ci", "targets/qa"))
	team := strings.NewReplacer("name: production", "name: team", registry+"/acme/**", registry+"/**")
	b.kubectl(t, team.Replace(strings.ReplaceAll(divided, "exceptImages", "# exceptImages")), "create")
	b.coveredBy(t, gun, "production", "team")

	c := &comparing{
		bed: b, owner: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: production, Name: "catalog"}},
	}
	b.create(t, c.owner)
	if n := c.pods(t, tagged); n != 4 {
		t.Errorf("with a tag that both policies pin: got %d Pods in 4 rounds, want 4", n)
	}
	if n := c.pods(t, pinned); n != 1 {
		t.Errorf("with %s: got %d Pods in 4 rounds, want 1", pinned, n)
	}

	b.kubectl(t, twin, "create")
	b.kubectl(t, divided, "replace")
	b.coveredBy(t, gun, "production-unpinned", "team")
	if n := c.pods(t, tagged); n != 4 {
		t.Errorf("with a twin for one policy of two: got %d Pods in 4 rounds, want 4", n)
	}
	b.kubectl(t, team.Replace(twin), "create")
	b.kubectl(t, team.Replace(divided), "replace")
	b.coveredBy(t, gun, "production-unpinned", "team-unpinned")
	if n := c.pods(t, tagged); n != 1 {
		t.Errorf("with a twin for both policies: got %d Pods in 4 rounds, want 1", n)
	}
	other := pod(production, gun+"-other:v1")
	b.denied(t, other, http.StatusForbidden, `ImagePolicy "production"`, `ImagePolicy "team"`)
}

// kubectl runs a kubectl command with a manifest as its input. It retries a conflict: the manager
// may have updated the status in between.
func (b *bed) kubectl(t *testing.T, manifest string, command ...string) {
	t.Helper()
	var failed error
	poll.Await(t, "kubectl without a conflict", func() error {
		out, err := b.kube.RunKubectl(t.Context(), manifest, append(command, "-f", "-")...)
		if err != nil {
			failed = fmt.Errorf("kubectl %q: %w\n%s\n%s", command, err, out, manifest)
			if strings.Contains(out, "(Conflict)") {
				return failed
			}
			return nil
		}
		failed = nil
		return nil
	})
	must(t, failed)
}

// coveredBy waits until these policies, and no others, deny an unsigned image of a repository.
func (b *bed) coveredBy(t *testing.T, gun string, policies ...string) {
	t.Helper()
	names := regexp.MustCompile(`ImagePolicy "([^"]+)"`)
	poll.Await(t, fmt.Sprintf("policies %q to cover %s", policies, gun), func() error {
		err := b.Create(t.Context(), pod(production, gun+":unsigned"), client.DryRunAll)
		if other := verdictOn(err); other != nil {
			return other
		}
		got := map[string]bool{}
		for _, m := range names.FindAllStringSubmatch(err.Error(), -1) {
			got[m[1]] = true
		}
		if named := slices.Sorted(maps.Keys(got)); !slices.Equal(named, policies) {
			return fmt.Errorf("got policies %q: %w", named, err)
		}
		return nil
	})
}
