package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/operator"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// formatPair is a repository whose policy requires ci from one format and qa from another.
type formatPair struct {
	repository, ci, qa string
	// other is a third format, whose trust root the policy does not name.
	other string
}

func formatPairs() []formatPair {
	return []formatPair{
		{"acme/web", "sigstore", "notation", "tuf"},
		{"acme/api", "simpleSigning", "tuf", "sigstore"},
		{"acme/tool", "notation", "sigstore", "simpleSigning"},
	}
}

// TestFormats creates the trust roots of the formats beside Notary as their pages say, and requires
// ci and qa from two of them. Then it restarts the manager while no server can be reached.
func TestFormats(t *testing.T) {
	t.Parallel()
	b := restarts{newBed(t), t}
	f := newFormats(t, b.bed)
	signed, half := map[formatPair]pushed{}, map[formatPair]pushed{}
	for _, p := range formatPairs() {
		signed[p], half[p] = pushAs(t, f.registry, p.repository, "v1"), pushAs(t, f.registry, p.repository, "half")
		f.sign[p.ci](t, "ci", signed[p])
		f.sign[p.qa](t, "qa", signed[p])
		f.sign[p.ci](t, "ci", half[p])
		f.sign[p.other](t, "qa", half[p]) // by a key that the policy does not trust
	}
	f.apply(t, b.bed)

	decided := func(code int32, texts ...string) {
		t.Helper()
		for _, p := range formatPairs() {
			image := signed[p]
			for _, ref := range []string{image.tag, image.digest} {
				running := pod(production, ref)
				b.admitted(t, running)
				if got, want := running.Spec.Containers[0].Image, image.hash(); !strings.HasSuffix(got, "@"+want) {
					t.Errorf("%s: got image %s, want it pinned to %s", ref, got, want)
				}
				denied := strings.NewReplacer(image.tag, half[p].tag, image.digest, half[p].digest).Replace(ref)
				b.denied(t, pod(production, denied), code, append(texts, fmt.Sprintf("signed by ci (TrustRoot %q)",
					f.roots[p.ci].Name))...)
			}
		}
	}
	decided(http.StatusForbidden, `role "qa" has not signed`)
	f.shown(t, b.bed)
	f.recorded(t, b.bed)
	b.restart(t, func() { f.stop(t) })
	decided(http.StatusServiceUnavailable, `role "qa" is not known to have signed`, "the connection was refused")
}

// apply creates the trust roots and the policies with kubectl.
func (f *formats) apply(t *testing.T, b *bed) {
	t.Helper()
	for _, format := range slices.Sorted(maps.Keys(f.roots)) {
		b.kubectl(t, b.manifest(t, f.roots[format]), "apply")
	}
	for _, p := range formatPairs() {
		images := f.registry.Host + "/" + p.repository
		policy := b.policy(filepath.Base(p.repository), images, f.roots[p.ci].Name, "ci", "qa")
		policy.Spec.TrustRoots = append(policy.Spec.TrustRoots, v1alpha1.ObjectName(f.roots[p.qa].Name))
		b.kubectl(t, b.manifest(t, policy), "apply")
	}
	for _, root := range f.roots {
		b.ready(t, &v1alpha1.TrustRoot{}, root.Name, metav1.ConditionTrue, v1alpha1.ReasonPinned)
	}
	for _, p := range formatPairs() {
		b.ready(t, &v1alpha1.ImagePolicy{}, filepath.Base(p.repository), metav1.ConditionTrue, v1alpha1.ReasonInForce)
	}
}

func (b *bed) manifest(t *testing.T, o client.Object) string {
	t.Helper()
	kinds, _, err := b.Scheme().ObjectKinds(o)
	must(t, err)
	o.GetObjectKind().SetGroupVersionKind(kinds[0])
	text, err := yaml.Marshal(o)
	must(t, err)
	return string(text)
}

// shown waits until kubectl prints every trust root with its format, Ready and Fresh, the number of
// its repositories, and an expiry if something of the format expires.
func (f *formats) shown(t *testing.T, b *bed) {
	t.Helper()
	const expiry = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +`
	rows := map[string]string{
		"sigstore": "Sigstore +True +True +2 +", "notation": "Notation +True +True +2 +" + expiry,
		"simpleSigning": "SimpleSigning +True +True +1 +", "tuf": "TUF +True +True +1 +" + expiry,
	}
	poll.Await(t, "the columns of kubectl", func() error {
		out, err := b.kube.RunKubectl(t.Context(), "", "get", "trustroots")
		if err != nil {
			return err
		}
		if header, _, _ := strings.Cut(out, "\n"); !slices.Equal(strings.Fields(header),
			[]string{"NAME", "FORMAT", "READY", "FRESH", "REPOSITORIES", "EXPIRES", "AGE"}) {
			return fmt.Errorf("got the columns %s", header)
		}
		var wrong []error
		for format, row := range rows {
			want := "(?m)^" + f.roots[format].Name + " +" + row + `\d+[sm][0-9s]*$`
			if !regexp.MustCompile(want).MatchString(out) {
				wrong = append(wrong, fmt.Errorf("got\n%swant a row that matches %s", out, want))
			}
		}
		return errors.Join(wrong...)
	})
	for format, root := range f.roots {
		got := &v1alpha1.TrustRoot{}
		must(t, b.Get(t.Context(), client.ObjectKeyFromObject(root), got))
		if want, _, _ := strings.Cut(rows[format], " "); got.Status.Format != want {
			t.Errorf("%s: got status.format %q, want %q", format, got.Status.Format, want)
		}
	}
}

// recorded waits until the evidence of every trust root is recorded.
func (f *formats) recorded(t *testing.T, b *bed) {
	t.Helper()
	for format, root := range f.roots {
		stored := &v1alpha1.TrustRoot{}
		must(t, b.Get(t.Context(), client.ObjectKeyFromObject(root), stored))
		want := 0 // one for each repository, under tuf one for all
		for _, p := range formatPairs() {
			if p.ci == format || p.qa == format {
				want++
			}
		}
		poll.Await(t, "the records of "+root.Name, func() error {
			all := &corev1.ConfigMapList{}
			if err := b.List(t.Context(), all, client.InNamespace(operator.Namespace), client.MatchingLabels{
				"countersign.dev/metadata": "head", "countersign.dev/trust-root-uid": string(stored.UID),
			}); err != nil {
				return err
			}
			if len(all.Items) != want {
				return fmt.Errorf("got %d records, want %d", len(all.Items), want)
			}
			return nil
		})
	}
}

// documented returns the first example of a page that contains a text.
func documented(t *testing.T, page, contains string) *v1alpha1.TrustRoot {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	must(t, err)
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for example := range strings.SplitSeq(block[1], "\n---\n") {
			if strings.Contains(example, "kind: TrustRoot") && strings.Contains(example, contains) {
				root := &v1alpha1.TrustRoot{}
				must(t, yaml.UnmarshalStrict([]byte(example), root))
				return root
			}
		}
	}
	t.Fatalf("%s has no TrustRoot with %q", page, contains)
	return nil
}
