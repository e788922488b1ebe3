package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

const (
	// emergency is a production namespace that uses break-glass.
	emergency = "shop-emergency"
	// exempted is the namespace in --exempt-namespaces.
	exempted = "acme-exempt"
)

// namespaceFor creates a namespace, and waits until it can hold Pods.
func (b *bed) namespaceFor(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	b.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	b.serviceAccount(t, name)
}

// serviceAccount waits for the default ServiceAccount of a namespace. Pods need it.
func (b *bed) serviceAccount(t *testing.T, namespace string) {
	t.Helper()
	poll.Await(t, "service account of "+namespace, func() error {
		return b.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "default"}, &corev1.ServiceAccount{})
	})
}

// breakGlass sets or removes the break-glass label, with the command of docs/break-glass.md.
func (b *bed) breakGlass(t *testing.T, label string) {
	t.Helper()
	if out, err := b.kube.RunKubectl(t.Context(), "", "label", "--overwrite", "namespace", emergency,
		v1alpha1.LabelBreakGlass+label); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// named sets an object's name, and its namespace to the emergency namespace.
func named(o client.Object, name string) client.Object {
	o.SetGenerateName("")
	o.SetNamespace(emergency)
	o.SetName(name)
	return o
}

// testBreakGlass sets the break-glass label on a namespace, and removes it.
func (b *bed) testBreakGlass(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	unsigned := gun + ":unsigned"
	b.namespaceFor(t, emergency, map[string]string{"env": "production"})
	c, warned := b.withWarnings(t)
	b.denied(t, pod(emergency, unsigned), http.StatusForbidden, `role "qa" has not signed`)

	t.Run("without a reason", func(t *testing.T) {
		b.breakGlass(t, "=")
		poll.Await(t, "the hint", func() error {
			if err := b.Create(t.Context(), pod(emergency, unsigned)); err == nil ||
				!strings.Contains(err.Error(), "needs a reason as its value") {
				return fmt.Errorf("got %w, want a denial with the hint", err)
			}
			return nil
		})
		b.denied(t, pod(emergency, unsigned), http.StatusForbidden, `role "qa" has not signed`,
			v1alpha1.LabelBreakGlass)
	})

	b.breakGlass(t, "=INC-1")
	b.awaitAdmitted(t, "break-glass", emergency, unsigned)
	t.Run("dry run", func(t *testing.T) {
		must(t, c.Create(t.Context(), named(pod(emergency, unsigned), "tried"), client.DryRunAll))
		wantGlassWarnings(t, warned, unsigned)
	})
	t.Run("Pod", func(t *testing.T) {
		p := named(pod(emergency, unsigned), "let-in")
		must(t, c.Create(t.Context(), p))
		wantGlassWarnings(t, warned, unsigned)
		b.glassEvent(t, p, "v1", "Pod", unsigned)
	})
	t.Run("Pod of a generated name", func(t *testing.T) {
		p := pod(emergency, unsigned)
		must(t, c.Create(t.Context(), p))
		wantGlassWarnings(t, warned, unsigned)
		b.glassEvent(t, p, "v1", "Pod", unsigned)
	})
	t.Run("Deployment", func(t *testing.T) {
		d := named(deployment("", unsigned), "let-in")
		must(t, c.Create(t.Context(), d))
		wantGlassWarnings(t, warned, unsigned)
		b.glassEvent(t, d, "apps/v1", "Deployment", unsigned)
		poll.Await(t, "its Pod", func() error {
			pods := &corev1.PodList{}
			if err := b.List(t.Context(), pods, client.InNamespace(emergency)); err != nil {
				return err
			}
			for _, p := range pods.Items {
				if len(p.OwnerReferences) == 1 && p.Spec.Containers[0].Image == unsigned {
					b.glassEvent(t, &p, "v1", "Pod", unsigned)
					return nil
				}
			}
			return fmt.Errorf("got %d Pods, and none of the Deployment", len(pods.Items))
		})
		out, err := b.kube.RunKubectl(t.Context(), "", "describe", "deployment", "-n", emergency, d.GetName())
		if err != nil || !strings.Contains(out, v1alpha1.ReasonBreakGlass) ||
			!strings.Contains(out, "break-glass (INC-1) let in") {
			t.Errorf("got %v and output\n%s\nwant the break-glass event in it", err, out)
		}
		b.testSecondUses(t, d, unsigned)
	})
	t.Run("as the page on it says", func(t *testing.T) {
		for command, want := range map[string]string{
			"get events -A --field-selector reason=BreakGlass":                            "let-in",
			"get namespaces -l countersign.dev/break-glass,countersign.dev/break-glass!=": emergency,
			"auth can-i patch namespaces/shop -A --as=system:serviceaccount:a:b":          "no",
		} {
			if out, _ := b.kube.RunKubectl(t.Context(), "", strings.Fields(command)...); !strings.Contains(out, want) ||
				strings.Contains(out, "Warning:") {
				t.Errorf("kubectl %s: got\n%s\nwant %q in it, and no warning", command, out, want)
			}
		}
	})
	t.Run("signed", func(t *testing.T) {
		p := pod(emergency, gun+":v1")
		must(t, c.Create(t.Context(), p))
		if got, want := p.Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
			t.Errorf("got stored image %q, want %q", got, want)
		}
		if got := warned.drain(); len(got) > 0 {
			t.Errorf("got warnings %q, want none", got)
		}
		if got, err := b.glassEvents(t, "Pod", p.Name); err != nil || len(got) > 0 {
			t.Errorf("got events %v (%v), want none", got, err)
		}
	})
	t.Run("no event for the dry run", func(t *testing.T) {
		if got, err := b.glassEvents(t, "Pod", "tried"); err != nil || len(got) > 0 {
			t.Errorf("got events %v (%v), want none", got, err)
		}
	})
	t.Run("other namespaces", func(t *testing.T) {
		p := pod(production, unsigned)
		p.Labels = map[string]string{v1alpha1.LabelBreakGlass: "INC-1"}
		p.Annotations = p.Labels
		b.denied(t, p, http.StatusForbidden, `role "qa" has not signed`)
	})

	b.breakGlass(t, "-")
	removed := time.Now()
	b.awaitDenied(t, "the gate to be shut again", emergency, unsigned)
	took := time.Since(removed)
	t.Logf("shut again %s after the label was removed", took.Round(time.Millisecond))
	if took > soon {
		t.Errorf("the gate was shut %s after the label was removed, want it at once", took)
	}
	b.denied(t, pod(emergency, unsigned), http.StatusForbidden, `role "qa" has not signed`)
}

// testSecondUses uses break-glass on the same Deployment again, for another image and with another
// reason. Each use must be an event of its own.
func (b *bed) testSecondUses(t *testing.T, d client.Object, image string) {
	use := func(image string) {
		t.Helper()
		patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}]`, image)
		must(t, b.Patch(t.Context(), d, client.RawPatch(types.JSONPatchType, []byte(patch))))
	}
	use(image + "-2")
	b.breakGlass(t, "=INC-2")
	use(image)
	b.breakGlass(t, "=INC-1")
	poll.Await(t, "an event for each use", func() error {
		found, err := b.glassEvents(t, "Deployment", d.GetName())
		if err != nil {
			return err
		}
		var got []string
		for _, e := range found {
			for _, reason := range []string{"INC-1", "INC-2"} {
				for _, i := range []string{image, image + "-2"} {
					if strings.Contains(e.Note, "("+reason+")") &&
						strings.Contains(e.Note, fmt.Sprintf("image %q", i)) && e.Regarding.UID == d.GetUID() {
						got = append(got, reason+" "+i)
					}
				}
			}
		}
		slices.Sort(got)
		if want := []string{"INC-1 " + image, "INC-1 " + image + "-2", "INC-2 " + image}; !slices.Equal(got, want) {
			return fmt.Errorf("got events %q, want %q", got, want)
		}
		return nil
	})
}

// wantGlassWarnings checks that there are two warnings: that break-glass is on, and one about the
// image.
func wantGlassWarnings(t *testing.T, warned *warnings, image string) {
	t.Helper()
	got := warned.drain()
	if len(got) != 2 || !strings.Contains(got[0], `break-glass is on in namespace "`+emergency+`" (INC-1)`) ||
		!strings.Contains(got[1], image) || !strings.Contains(got[1], `role "qa" has not signed`) {
		t.Errorf("got warnings %q, want one that break-glass is on and one about %s", got, image)
	}
}

// glassEvents returns the break-glass events about a workload of the emergency namespace.
func (b *bed) glassEvents(t *testing.T, kind, name string) ([]eventsv1.Event, error) {
	t.Helper()
	return b.events(t.Context(), func(e *eventsv1.Event) bool {
		return e.Namespace == emergency && e.Reason == v1alpha1.ReasonBreakGlass && e.Regarding.Kind == kind &&
			e.Regarding.Name == name
	})
}

// glassEvent waits for the one break-glass event about a stored object.
func (b *bed) glassEvent(t *testing.T, o client.Object, apiVersion, kind, image string) {
	t.Helper()
	poll.Await(t, "the event about "+kind+" "+o.GetName(), func() error {
		found, err := b.glassEvents(t, kind, o.GetName())
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("got %d events, want one", len(found))
		}
		e := found[0]
		if e.Type != corev1.EventTypeWarning || e.Regarding.APIVersion != apiVersion ||
			e.Regarding.Namespace != emergency ||
			o.GetUID() == "" || e.Regarding.UID != o.GetUID() ||
			!strings.Contains(e.Note, "INC-1") || !strings.Contains(e.Note, image) ||
			!strings.Contains(e.Note, `role "qa" has not signed`) {
			return fmt.Errorf("got %+v, want a warning with INC-1, %s and the missing role", e, image)
		}
		return nil
	})
}
