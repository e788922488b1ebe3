package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv"
)

const (
	// emergency is a namespace of production in which break-glass is used.
	emergency = "shop-emergency"
	// exempted is what --exempt-namespaces names.
	exempted = "acme-exempt"
)

// namespaceFor makes a namespace in which Pods can be made.
func (b *bed) namespaceFor(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	b.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	b.serviceAccount(t, name)
}

func (b *bed) serviceAccount(t *testing.T, namespace string) {
	t.Helper()
	testenv.Await(t, "service account of "+namespace, func() error {
		return b.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "default"}, &corev1.ServiceAccount{})
	})
}

// breakGlass sets or removes the label by the command of docs/break-glass.md.
func (b *bed) breakGlass(t *testing.T, label string) {
	t.Helper()
	if out, err := b.kube.RunKubectl(t.Context(), "", "label", "--overwrite", "namespace", emergency, v1alpha1.LabelBreakGlass+label); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// named gives an object a name of its own in the emergency namespace.
func named(o client.Object, name string) client.Object {
	o.SetGenerateName("")
	o.SetNamespace(emergency)
	o.SetName(name)
	return o
}

// testBreakGlass sets the label on a namespace, and takes it away.
func (b *bed) testBreakGlass(t *testing.T) {
	gun := b.repository(t, "ci", "qa")
	digest := b.sign(t, gun, "v1", 1, "ci", "qa")
	unsigned := gun + ":unsigned"
	b.namespaceFor(t, emergency, map[string]string{"env": "production"})
	c, heard := b.listening(t)
	b.denied(t, pod(emergency, unsigned), http.StatusForbidden, `role "qa" has not signed`)

	t.Run("without a reason", func(t *testing.T) {
		b.breakGlass(t, "=")
		testenv.Await(t, "the hint", func() error {
			if err := b.Create(t.Context(), pod(emergency, unsigned)); err == nil || !strings.Contains(err.Error(), "needs a reason as its value") {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
		b.denied(t, pod(emergency, unsigned), http.StatusForbidden, `role "qa" has not signed`, v1alpha1.LabelBreakGlass)
	})

	b.breakGlass(t, "=INC-1")
	testenv.Await(t, "break-glass", func() error { return b.Create(t.Context(), pod(emergency, unsigned), client.DryRunAll) })
	t.Run("dry run", func(t *testing.T) {
		must(t, c.Create(t.Context(), named(pod(emergency, unsigned), "tried"), client.DryRunAll))
		wantGlassWarnings(t, heard, unsigned)
	})
	t.Run("Pod", func(t *testing.T) {
		p := named(pod(emergency, unsigned), "let-in")
		must(t, c.Create(t.Context(), p))
		wantGlassWarnings(t, heard, unsigned)
		b.glassEvent(t, "v1", "Pod", p.GetName(), unsigned)
	})
	t.Run("Pod of a generated name", func(t *testing.T) {
		p := pod(emergency, unsigned)
		must(t, c.Create(t.Context(), p))
		wantGlassWarnings(t, heard, unsigned)
		b.glassEvent(t, "v1", "Pod", p.Name, unsigned)
	})
	t.Run("Deployment", func(t *testing.T) {
		d := named(deployment("", unsigned), "let-in")
		must(t, c.Create(t.Context(), d))
		wantGlassWarnings(t, heard, unsigned)
		b.glassEvent(t, "apps/v1", "Deployment", d.GetName(), unsigned)
		testenv.Await(t, "its Pod", func() error {
			pods := &corev1.PodList{}
			must(t, b.List(t.Context(), pods, client.InNamespace(emergency)))
			for _, p := range pods.Items {
				if len(p.OwnerReferences) == 1 && p.Spec.Containers[0].Image == unsigned {
					b.glassEvent(t, "v1", "Pod", p.Name, unsigned)
					return nil
				}
			}
			return errors.New("not there yet")
		})
	})
	t.Run("as the page on it says", func(t *testing.T) {
		for command, want := range map[string]string{
			"get events -A --field-selector reason=BreakGlass":               "let-in",
			"get namespaces -l countersign.dev/break-glass":                  emergency,
			"auth can-i patch namespace/shop --as=system:serviceaccount:a:b": "no",
		} {
			if out, _ := b.kube.RunKubectl(t.Context(), "", strings.Fields(command)...); !strings.Contains(out, want) {
				t.Errorf("kubectl %s: want %q in\n%s", command, want, out)
			}
		}
	})
	t.Run("signed", func(t *testing.T) {
		p := pod(emergency, gun+":v1")
		must(t, c.Create(t.Context(), p))
		if got, want := p.Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
			t.Errorf("stored image is %q, want %q", got, want)
		}
		if got := heard.all(); len(got) > 0 {
			t.Errorf("warnings %q", got)
		}
		if got := b.glassEvents(t, "Pod", p.Name); len(got) > 0 {
			t.Errorf("events %v", got)
		}
	})
	t.Run("no event of the dry run", func(t *testing.T) {
		if got := b.glassEvents(t, "Pod", "tried"); len(got) > 0 {
			t.Errorf("events %v", got)
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
	testenv.Await(t, "the gate to be shut again", func() error {
		if b.Create(t.Context(), pod(emergency, unsigned), client.DryRunAll) == nil {
			return errors.New("still admitted")
		}
		return nil
	})
	took := time.Since(removed)
	t.Logf("shut again %s after the label was removed", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	b.denied(t, pod(emergency, unsigned), http.StatusForbidden, `role "qa" has not signed`)
}

// wantGlassWarnings wants one line that says that break-glass is on, and one for the image.
func wantGlassWarnings(t *testing.T, heard *warnings, image string) {
	t.Helper()
	got := heard.all()
	if len(got) != 2 || !strings.Contains(got[0], `break-glass is on in namespace "`+emergency+`" (INC-1)`) ||
		!strings.Contains(got[1], image) || !strings.Contains(got[1], `role "qa" has not signed`) {
		t.Errorf("warnings %q", got)
	}
}

// glassEvents returns the break-glass events about a workload of the emergency namespace.
func (b *bed) glassEvents(t *testing.T, kind, name string) []eventsv1.Event {
	t.Helper()
	list := &eventsv1.EventList{}
	must(t, b.List(t.Context(), list, client.InNamespace(emergency)))
	var found []eventsv1.Event
	for _, e := range list.Items {
		if e.Reason == v1alpha1.ReasonBreakGlass && e.Regarding.Kind == kind && e.Regarding.Name == name {
			found = append(found, e)
		}
	}
	return found
}

func (b *bed) glassEvent(t *testing.T, apiVersion, kind, name, image string) {
	t.Helper()
	testenv.Await(t, "the event about "+kind+" "+name, func() error {
		found := b.glassEvents(t, kind, name)
		if len(found) != 1 {
			return fmt.Errorf("%d events", len(found))
		}
		e := found[0]
		if e.Type != corev1.EventTypeWarning || e.Regarding.APIVersion != apiVersion || e.Regarding.Namespace != emergency ||
			!strings.Contains(e.Note, "INC-1") || !strings.Contains(e.Note, image) || !strings.Contains(e.Note, `role "qa" has not signed`) {
			return fmt.Errorf("it is %+v", e)
		}
		return nil
	})
}

// testManagerDown wants everything shut but what is exempt, break-glass or not: nobody would warn of it, count or record it.
func (b *bed) testManagerDown(t *testing.T) {
	b.namespaceFor(t, exempted, nil)
	b.breakGlass(t, "=INC-2")
	testenv.Await(t, "break-glass", func() error {
		return b.Create(t.Context(), pod(emergency, registry+"/acme/unsigned:v1"), client.DryRunAll)
	})
	must(t, b.manager.Stop())
	for _, namespace := range []string{"kube-system", "kube-public", "kube-node-lease", testenv.OwnNamespace, exempted} {
		t.Run("exempt "+namespace, func(t *testing.T) {
			b.serviceAccount(t, namespace)
			p := pod(namespace, registry+"/acme/unsigned:v1")
			b.admitted(t, p)
			must(t, b.Delete(t.Context(), p))
		})
	}
	for _, namespace := range []string{"default", "sandbox", production, emergency} {
		t.Run("shut "+namespace, func(t *testing.T) {
			b.serviceAccount(t, namespace)
			refused(t, b.Create(t.Context(), pod(namespace, "docker.io/library/nginx:1")), http.StatusInternalServerError, "failed calling webhook")
		})
	}
	t.Run("the way out", b.testWayOut)
}

// testWayOut deletes both webhook configurations as docs/break-glass.md says, and then puts them back for the tests to come.
func (b *bed) testWayOut(t *testing.T) {
	mutating, validating := &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{}
	for _, o := range []client.Object{mutating, validating} {
		must(t, b.Get(t.Context(), client.ObjectKey{Name: "countersign"}, o))
		o.SetResourceVersion("")
		o.SetUID("")
	}
	if got := *validating.Webhooks[0].SideEffects; got != admissionv1.SideEffectClassNoneOnDryRun {
		t.Errorf("side effects are declared as %s, and break-glass writes events", got)
	}
	out, err := b.kube.RunKubectl(t.Context(), "", "delete", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "countersign")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	create := func(ctx context.Context) error {
		return b.Create(ctx, pod(production, registry+"/acme/unsigned:v1"), client.DryRunAll)
	}
	testenv.Await(t, "an unsigned Pod", func() error { return create(t.Context()) })
	b.create(t, mutating)
	b.create(t, validating)
	testenv.Await(t, "the gate to be shut again", func() error {
		if create(t.Context()) == nil {
			return errors.New("still admitted")
		}
		return nil
	})
}
