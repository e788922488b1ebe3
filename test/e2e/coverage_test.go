package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// legacy is a namespace that had workloads before a policy covered it.
const legacy = "legacy"

// cover is a bed whose manager checks Rollouts too, with a repository in which one tag is signed by
// both roles, one by CI alone, and one by nobody.
type cover struct {
	*bed
	repository string
	names      int
}

// The states of signing, which are also the tags.
const (
	signed   = "signed"
	ciOnly   = "ci-only"
	unsigned = "unsigned"
)

func states() []string { return []string{signed, ciOnly, unsigned} }

func (c *cover) image(state string) string { return c.repository + ":" + state }

func (c *cover) name() string {
	c.names++
	return fmt.Sprintf("w-%d", c.names)
}

// missing is what a denial says of a state.
func missing(state string) string {
	return map[string]string{ciOnly: `role "qa" has not signed`, unsigned: `role "ci" has not signed`}[state]
}

// TestCoverage goes every way by which an image can come into a cluster.
func TestCoverage(t *testing.T) {
	t.Parallel()
	c := &cover{bed: newBed(t, "--workload-kinds=rollouts.v1alpha1.argoproj.io=spec.template")}
	// After the manager: a kind may be installed later.
	_, err := envtest.InstallCRDs(c.kube.Config,
		envtest.CRDInstallOptions{Paths: []string{"testdata"}, ErrorIfPathMissing: true})
	must(t, err)
	c.repository = c.bed.repository(t, "ci", "qa")
	c.sign(t, c.repository, signed, 1, "ci", "qa")
	c.sign(t, c.repository, ciOnly, 2, "ci")
	t.Run("kinds and operations", c.testKindsAndOperations)
	t.Run("lists", c.testLists)
	t.Run("kubectl", c.testKubectl)
	t.Run("bad input", c.testBadInput)
}

// cell is one place of the table.
type cell struct {
	*cover
	t *testing.T
	subject
	operation
	state string
	// object is what the operation is done to, in the form in which it was made.
	object *unstructured.Unstructured
}

func (c *cell) String() string {
	return fmt.Sprintf("%-18s %-42s %-9s", c.subject.name, c.operation.name, c.state)
}

// want is the one rule of the table: what brings an image in is admitted where every role has
// signed the image, and everything else is admitted.
func (c *cell) want() bool { return !c.brings || c.state == signed }

// judge compares what became of a cell with what had to, and returns the line of the table.
func (c *cell) judge(err error) string {
	c.t.Helper()
	outcome, good := "admitted", c.want()
	if err != nil {
		outcome = "denied"
		var status apierrors.APIStatus
		good = !good && errors.As(err, &status) && status.Status().Code == http.StatusForbidden &&
			strings.Contains(err.Error(), missing(c.state)) &&
			strings.Contains(err.Error(), `ImagePolicy "production"`)
	}
	if good {
		return fmt.Sprintf("%s %-8s as expected", c, outcome)
	}
	c.t.Errorf("%s: admitted must be %t: %v", c, c.want(), err)
	return fmt.Sprintf("%s %-8s NOT AS EXPECTED", c, outcome)
}

// testKindsAndOperations fills the table of kinds, operations and states of signing, and prints it.
func (c *cover) testKindsAndOperations(t *testing.T) {
	c.namespaceFor(t, legacy, nil)
	var cells []*cell
	var table []string
	for _, s := range subjects(t) {
		for _, o := range operations() {
			if why := o.not(s); why != "" {
				table = append(table, fmt.Sprintf("%-18s %-42s none: %s", s.name, o.name, why))
				if why == s.frozen || why == s.fixed {
					refused(t, o.do(c.prepare(t, s, o, unsigned)), http.StatusUnprocessableEntity)
				}
				continue
			}
			for _, state := range states() {
				cells = append(cells, c.prepare(t, s, o, state))
			}
		}
	}
	c.coverLegacy(t)
	for _, cell := range cells {
		table = append(table, cell.judge(cell.do(cell)))
	}
	slices.Sort(table)
	t.Logf("%d cells\n%s", len(cells), strings.Join(table, "\n"))
	c.wantNoUnsignedPods(t)
}

// prepare makes what an operation finds, while no policy covers the namespace.
func (c *cover) prepare(t *testing.T, s subject, o operation, state string) *cell {
	t.Helper()
	made := &cell{cover: c, t: t, subject: s, operation: o, state: state}
	before := map[before]string{nothing: c.image(state), already: c.image(state), allowed: c.image(signed)}[o.before]
	made.object = s.object(t, legacy, c.name(), before)
	if o.held {
		made.object.SetFinalizers([]string{"example.com/hold"})
	}
	if o.before != nothing {
		must(t, c.Create(t.Context(), made.object.DeepCopy()))
	}
	return made
}

// coverLegacy has the policy cover the namespace, and returns once it does.
func (c *cover) coverLegacy(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: legacy}}
	must(t,
		c.Patch(t.Context(), namespace,
			client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"env":"production"}}}`))))
	c.awaitDenied(t, "the policy to cover "+legacy, legacy, c.image(unsigned))
}

// wantNoUnsignedPods wants the controllers to have been denied the Pods of what was scaled: the
// owner of a Pod proves nothing.
func (c *cover) wantNoUnsignedPods(t *testing.T) {
	t.Helper()
	poll.Await(t, "a controller that is told of the denial", func() error {
		events := &corev1.EventList{}
		if err := c.List(t.Context(), events, client.InNamespace(legacy)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, missing(unsigned)) {
				return nil
			}
		}
		return fmt.Errorf("none among %d events", len(events.Items))
	})
	pods := &corev1.PodList{}
	must(t, c.List(t.Context(), pods, client.InNamespace(legacy)))
	owned := 0
	for _, p := range pods.Items {
		if len(p.OwnerReferences) == 0 {
			continue
		}
		owned++
		if image := p.Spec.Containers[0].Image; !strings.HasPrefix(image, c.image(signed)+"@sha256:") {
			t.Errorf("%s %s made Pod %s with image %q", p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name,
				p.Name, image)
		}
	}
	if owned == 0 {
		t.Error("no controller made any Pod")
	}
}
