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

// legacy is a namespace with workloads that are older than the policy.
const legacy = "legacy"

// cover is a bed whose manager checks Rollouts too. In its repository one tag is signed by both
// roles, one only by ci, and one is not signed.
type cover struct {
	*bed
	repository string
	names      int
}

// The states of signing. They are also the tags.
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

// missing returns a text of the denial of an image in a state.
func missing(state string) string {
	return map[string]string{ciOnly: `role "qa" has not signed`, unsigned: `role "ci" has not signed`}[state]
}

// TestCoverage tests every way in which an image can get into a cluster.
func TestCoverage(t *testing.T) {
	t.Parallel()
	c := &cover{bed: newBed(t, "--workload-kinds=rollouts.v1alpha1.argoproj.io=spec.template")}
	// The manager runs already: a kind may be installed after it.
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

// cell is one cell of the table.
type cell struct {
	*cover
	t *testing.T
	subject
	operation
	state string
	// object is the object of the operation, as it was created.
	object *unstructured.Unstructured
}

func (c *cell) String() string {
	return fmt.Sprintf("%-18s %-42s %-9s", c.subject.name, c.operation.name, c.state)
}

// want returns whether the operation must be admitted. That is the one rule of the table: an
// operation that brings in an image needs the signatures of every role. All others are admitted.
func (c *cell) want() bool { return !c.brings || c.state == signed }

// judge compares the result of an operation with want, and returns the line of the table.
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
	c.t.Errorf("%s: got %v, want admitted %t", c, err, c.want())
	return fmt.Sprintf("%s %-8s NOT AS EXPECTED", c, outcome)
}

// testKindsAndOperations runs each operation on each kind with each state of signing, and logs the
// table.
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

// prepare creates the object of an operation while no policy covers the namespace.
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

// coverLegacy labels the namespace so that the policy covers it, and waits until it does.
func (c *cover) coverLegacy(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: legacy}}
	must(t,
		c.Patch(t.Context(), namespace,
			client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"env":"production"}}}`))))
	c.awaitDenied(t, "the policy to cover "+legacy, legacy, c.image(unsigned))
}

// wantNoUnsignedPods checks that the Pods of controllers were denied: the owner of a Pod proves
// nothing.
func (c *cover) wantNoUnsignedPods(t *testing.T) {
	t.Helper()
	poll.Await(t, "an event of a controller about the denial", func() error {
		events := &corev1.EventList{}
		if err := c.List(t.Context(), events, client.InNamespace(legacy)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, missing(unsigned)) {
				return nil
			}
		}
		return fmt.Errorf("got %d other events", len(events.Items))
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
			t.Errorf("got Pod %s of %s %s with image %q, want only signed images", p.Name, p.OwnerReferences[0].Kind,
				p.OwnerReferences[0].Name, image)
		}
	}
	if owned == 0 {
		t.Error("got no Pod of a controller, want some with the signed image")
	}
}
