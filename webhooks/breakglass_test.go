package webhooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// glass returns the namespaces of the bench, with a break-glass label on shop.
func glass(reason string) namespaces {
	return namespaces{labels: map[string]map[string]string{
		"shop": {"env": "production", v1alpha1.LabelBreakGlass: reason}, "lab": {"env": "lab"},
	}}
}

// broken returns a bench in which break-glass is on in the namespace shop.
func broken(t *testing.T, policies ...v1alpha1.ImagePolicySpec) *bench {
	t.Helper()
	b := newBench(t, policies...)
	b.Namespaces, b.LiveNamespaces = glass("INC-1"), glass("INC-1")
	return b
}

const glassIsOn = `break-glass is on in namespace "shop" (INC-1): admitted what would be denied`

// Break-glass admits whatever would be denied for its images. The denial is in warnings, an audit
// annotation, a log line and an event.
func TestBreakGlassAdmits(t *testing.T) {
	cases := map[string]struct {
		prepare func(*bench)
		image   string
		denial  string // part of it
	}{
		"not signed":   {func(*bench) {}, ciOnly, `role "qa" has not signed`},
		"not readable": {func(*bench) {}, "registry.example.com/acme/App:v1", "cannot be read"},
		"not pinned":   {func(*bench) {}, signed, "not pinned"},
		"not primed": {
			func(b *bench) {
				b.Store = store.New(store.Options{
					Uncovered: policy.UncoveredAllow, ShortNames: policy.ShortNamesDockerIO,
				})
			}, pinned, "policies are still being loaded",
		},
		"no signing server": {func(b *bench) {
			b.root.answers(nil, trust.NewFault(v1alpha1.ReasonUnreachable, "no connection to notary.example.com"))
		}, pinned, "no connection to notary.example.com"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := broken(t)
			c.prepare(b)
			var logged []string
			ctx := logf.IntoContext(t.Context(),
				funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{}))
			review := request{kind: "Pod", object: object("Pod", c.image)}.review(t)
			got := b.Validate(ctx, admissionRequest(review)).AdmissionResponse
			wantAdmitted(t, &got)
			if len(got.Warnings) != 2 || got.Warnings[0] != glassIsOn || !strings.Contains(got.Warnings[1], c.denial) {
				t.Errorf("got the warnings %q, want break-glass and the denial", got.Warnings)
			}
			if note := got.AuditAnnotations[breakGlassAnnotation]; !strings.HasPrefix(note, "reason INC-1\n") ||
				!strings.Contains(note, c.denial) {
				t.Errorf("got the audit annotation %q, want the reason and the denial", note)
			}
			if len(logged) != 1 ||
				!strings.Contains(logged[0], `"level"=0 "msg"="Admitted by break-glass what would be denied"`) ||
				!strings.Contains(logged[0], `"reason"="INC-1"`) || !strings.Contains(logged[0], `"namespace"="shop"`) {
				t.Errorf("got the log lines %q, want one with the reason", logged)
			}
			events := b.events.all()
			if len(events) != 1 || !strings.HasPrefix(events[0], "Warning BreakGlass Admit/INC-1/") ||
				!strings.Contains(events[0], " v1 Pod shop/acme: break-glass (INC-1) let in what would be denied: ") ||
				!strings.Contains(events[0], c.denial) {
				t.Errorf("got the events %q, want one with the denial", events)
			}
		})
	}
}

// All warnings for a client, with several images and a policy in mode Warn.
func TestBreakGlassText(t *testing.T) {
	b := broken(t, requireBoth(nil), requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.Mode, s.RequiredRoles = v1alpha1.ModeWarn, []v1alpha1.RoleRequirement{{Role: "security"}}
	}), requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.Mode = v1alpha1.ModeAudit }))
	got := b.validate(t, request{kind: "Deployment", object: object("Deployment", ciOnly, signed, ciOnly)})
	wantAdmitted(t, got)
	want := []string{
		glassIsOn,
		`image "registry.example.com/acme/app:ci-only": ImagePolicy "policy-0": role "qa" has not signed sha256:bbbbbbbb...; signed by ci (TrustRoot "acme")`,
		`image "registry.example.com/acme/app:ci-only": ImagePolicy "policy-1": role "security" has not signed it; ci signed sha256:bbbbbbbb... (TrustRoot "acme")`,
		`image "registry.example.com/acme/app:signed": ImagePolicy "policy-1": role "security" has not signed sha256:aaaaaaaa...; signed by ci, qa (TrustRoot "acme")`,
	}
	if diff := cmp.Diff(want, got.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if !strings.Contains(got.AuditAnnotations[auditAnnotation], `ImagePolicy "policy-2"`) {
		t.Errorf("got the audit annotations %q, want one of the policy in mode Audit", got.AuditAnnotations)
	}
}

// A signed image is admitted without a warning, and a namespace without the label still denies.
func TestBreakGlassIsSilentWhereItIsNotNeeded(t *testing.T) {
	b := broken(t)
	stored, got := b.admit(t, request{kind: "Pod", object: object("Pod", signed)})
	wantAdmitted(t, got)
	wantImage(t, stored, pinned)
	if len(got.Warnings) > 0 || len(got.AuditAnnotations) > 0 || len(b.events.all()) > 0 {
		t.Errorf("a signed Pod: got %+v, want no warning, annotation or event", got)
	}
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly), namespace: "lab"}), 403)
	if events := b.events.all(); len(events) > 0 {
		t.Errorf("a denial: got the events %q, want none", events)
	}
}

// The mutating handler pins signed images even beside an image that only break-glass admits.
func TestBreakGlassPinsStill(t *testing.T) {
	b := broken(t)
	stored, got := b.admit(t, request{kind: "Pod", object: object("Pod", signed, unsigned)})
	wantAdmitted(t, got)
	wantImage(t, stored, pinned)
	wantImage(t, stored, unsigned)
}

// A dry run has the same answer and raises no event.
func TestBreakGlassDryRun(t *testing.T) {
	b := broken(t)
	review := request{kind: "Pod", object: object("Pod", ciOnly)}.review(t)
	review.Request.DryRun = ptr.To(true)
	got := b.send(t, ValidatePath, review)
	wantAdmitted(t, got)
	if len(got.Warnings) != 2 || got.Warnings[0] != glassIsOn {
		t.Errorf("got the warnings %q, want break-glass and the denial", got.Warnings)
	}
	if events := b.events.all(); len(events) > 0 {
		t.Errorf("got the events %q, want none", events)
	}
}

// Only the live label of the Namespace counts, and only with a reason.
func TestThreatBreakGlassIsConfirmed(t *testing.T) {
	none := namespaces{labels: map[string]map[string]string{"shop": {"env": "production"}}}
	cases := map[string]struct {
		cached, live namespaces
		hint         string // empty for none
	}{
		"no label":                {none, none, ""},
		"removed, the cache lags": {glass("INC-1"), none, ""},
		"emptied, the cache lags": {glass("INC-1"), glass(""), "needs a reason"},
		"no reason": {
			glass(""), glass(""),
			"break-glass is not on: label countersign.dev/break-glass of namespace \"shop\" needs a reason as its value",
		},
		"deleted, the cache lags": {glass("INC-1"), namespaces{}, "could not be confirmed"},
		"cannot be confirmed": {
			glass("INC-1"), namespaces{err: errors.New("the server is busy")},
			`break-glass could not be confirmed: reading namespace "shop": the server is busy; try again`,
		},
		"with a value and fault": {
			glass("INC-1"), namespaces{labels: glass("INC-1").labels, err: errors.New("the server is busy")},
			"could not be confirmed",
		},
		"not yet in the cache": {none, glass("INC-1"), ""},
		"another label's prefix": {
			labelled("countersign.dev/break-glass.x"), labelled("countersign.dev/break-glass.x"), "",
		},
		"a label of the same name": {labelled("break-glass"), labelled("break-glass"), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Namespaces, b.LiveNamespaces = c.cached, c.live
			got := b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)})
			wantDenied(t, got, 403, `role "qa" has not signed`, c.hint)
			if c.hint == "" && strings.Contains(got.Result.Message, "break-glass") {
				t.Errorf("got the message %q, want nothing about break-glass", got.Result.Message)
			}
			if len(got.Warnings) > 0 || len(got.AuditAnnotations) > 0 || len(b.events.all()) > 0 {
				t.Errorf("got %+v, want a denial without warnings, annotations and events", got)
			}
		})
	}
	t.Run("nothing could be read at all", func(t *testing.T) {
		b := newBench(t)
		b.Namespaces, b.LiveNamespaces = namespaces{err: errors.New("the cache is not there")}, glass("INC-1")
		wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}), 503, "the cache is not there")
	})
}

func labelled(key string) namespaces {
	return namespaces{labels: map[string]map[string]string{"shop": {key: "INC-1"}}}
}

// The label counts on the Namespace of the request only: not on the object or its template, not as
// an annotation, and not on a namespace that the object names.
func TestThreatBreakGlassOnlyOnTheNamespace(t *testing.T) {
	on := map[string]string{v1alpha1.LabelBreakGlass: "INC-1"}
	cases := map[string]func(*appsv1.Deployment){
		"label":                      func(d *appsv1.Deployment) { d.Labels = on },
		"annotation":                 func(d *appsv1.Deployment) { d.Annotations = on },
		"label of the template":      func(d *appsv1.Deployment) { d.Spec.Template.Labels = on },
		"annotation of the template": func(d *appsv1.Deployment) { d.Spec.Template.Annotations = on },
		"selector": func(d *appsv1.Deployment) {
			d.Spec.Selector = &metav1.LabelSelector{MatchLabels: on}
		},
		"node selector":           func(d *appsv1.Deployment) { d.Spec.Template.Spec.NodeSelector = on },
		"a namespace that has it": func(d *appsv1.Deployment) { d.Namespace = "open" },
		"that of the template":    func(d *appsv1.Deployment) { d.Spec.Template.Namespace = "open" },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			all := namespaces{labels: map[string]map[string]string{"shop": {"env": "production"}, "open": on}}
			b.Namespaces, b.LiveNamespaces = all, all
			d := object("Deployment", ciOnly).(*appsv1.Deployment)
			change(d)
			_, got := b.admit(t, request{kind: "Deployment", object: d, namespace: "shop"})
			wantDenied(t, got, 403, `role "qa"`)
			pod := object("Pod", ciOnly)
			pod.SetLabels(d.Labels)
			pod.SetAnnotations(d.Annotations)
			pod.SetNamespace(d.Namespace)
			_, got = b.admit(t, request{kind: "Pod", object: pod, namespace: "shop"})
			wantDenied(t, got, 403, `role "qa"`)
		})
	}
}

// Break-glass does not admit an object that cannot be parsed or that makes the check panic: the
// images in it would be unknown.
func TestThreatBreakGlassExcusesNothingUnreadable(t *testing.T) {
	for name, raw := range map[string]string{
		"null containers": `{"spec":{"containers":null}}`,
		"null container":  `{"spec":{"containers":[null]}}`,
		"image twice":     `{"spec":{"containers":[{"image":"` + pinned + `","image":"` + unsigned + `"}]}}`,
		"not an object":   `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			b := broken(t)
			wantDenied(t, b.validate(t, request{kind: "Pod", object: raw}), 400)
		})
	}
	b := broken(t)
	review := request{kind: "Pod", object: object("Pod", ciOnly)}.review(t)
	review.Request.Resource.Resource = "services"
	wantDenied(t, b.send(t, ValidatePath, review), 400)
	b.root.answers(panicking{}, nil)
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", pinned)}), 500)
	if events := b.events.all(); len(events) > 0 {
		t.Errorf("got the events %q, want none", events)
	}
}

// With many images, the event, the warnings and the annotation stay within the limits of the API
// server.
func TestBreakGlassIsBounded(t *testing.T) {
	b := broken(t)
	var images []string
	for i := range 500 {
		images = append(images, fmt.Sprintf("%s:é%d", repository, i), fmt.Sprintf("%s:v%d", repository, i))
	}
	got := b.validate(t, request{kind: "Pod", object: object("Pod", images...)})
	wantAdmitted(t, got)
	total := 0
	for _, w := range got.Warnings {
		total += len(w)
	}
	if len(got.Warnings) < 5 || total > 4096 || got.Warnings[0] != glassIsOn {
		t.Errorf("got %d warnings of %d bytes, the first %q, want at least 5 of at most 4096", len(got.Warnings),
			total, got.Warnings[0])
	}
	if n := len(got.AuditAnnotations[breakGlassAnnotation]); n < 1000 || n > maxMessage+100 {
		t.Errorf("got an audit annotation of %d bytes, want 1000 to %d", n, maxMessage+100)
	}
	events := b.events.all()
	if len(events) != 1 {
		t.Fatalf("got the events %q, want one", events)
	}
	_, note, _ := strings.Cut(events[0], "shop/acme: ")
	if len(note) < 500 || len(note) > 1024 || strings.ToValidUTF8(note, "?") != note {
		t.Errorf("got a note of %d bytes, want 500 to 1024 of valid UTF-8: %q", len(note), note)
	}
}

// The hint ends a denial of any length, and the whole message stays within its limit.
func TestBreakGlassHintIsNotCutOff(t *testing.T) {
	b := newBench(t)
	b.Namespaces, b.LiveNamespaces = glass(""), glass("")
	for padding := range 12 {
		var images []string
		for i := range 60 {
			images = append(images, fmt.Sprintf("%s:v%d%s", repository, i, strings.Repeat("x", 8*padding)))
		}
		got := b.validate(t, request{kind: "Pod", object: object("Pod", images...)})
		wantDenied(t, got, 403, "needs a reason as its value")
		if n := len(got.Result.Message); n > maxMessage {
			t.Errorf("got a message of %d bytes, want at most %d", n, maxMessage)
		}
	}
}

// The decision and the live read together end before the webhook's timeout of 10 s.
func TestThreatConfirmationIsWithinTheTimeout(t *testing.T) {
	b := broken(t)
	var left time.Duration
	b.LiveNamespaces = observing{namespaces: glass("INC-1"), see: func(ctx context.Context) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("got a context without a deadline")
		}
		left = time.Until(deadline)
	}}
	wantAdmitted(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}))
	if left <= 0 || validateDeadline+left > 9*time.Second {
		t.Errorf("got %s for the live read, want at most %s", left, 9*time.Second-validateDeadline)
	}
}

// Without the label in the cache, a denial costs the API server no request.
func TestDenialsAreNotConfirmed(t *testing.T) {
	b := newBench(t)
	b.LiveNamespaces = observing{see: func(context.Context) { t.Error("read live") }}
	wantDenied(t, b.validate(t, request{kind: "Pod", object: object("Pod", ciOnly)}), 403)
}

// Kubernetes merges events that differ only in their note. Only admissions of the same images for
// the same reason may be merged.
func TestThreatEachUseOfBreakGlassIsAnEventOfItsOwn(t *testing.T) {
	long := strings.Repeat("x", maxReason)
	seen := map[string]string{}
	for use, c := range map[string]struct {
		reason string
		images []string
	}{
		"one":                  {"INC-1", []string{ciOnly}},
		"another image":        {"INC-1", []string{unsigned}},
		"another reason":       {"INC-2", []string{ciOnly}},
		"an image more":        {"INC-1", []string{ciOnly, unsigned}},
		"two written as one":   {"INC-1", []string{ciOnly + " " + unsigned}},
		"the longest reason":   {long, []string{ciOnly}},
		"images as they began": {long, []string{ciOnly + "x"}},
	} {
		b := newBench(t)
		b.Namespaces, b.LiveNamespaces = glass(c.reason), glass(c.reason)
		for range 2 {
			wantAdmitted(t, b.validate(t, request{kind: "Deployment", object: object("Deployment", c.images...)}))
		}
		events := b.events.all()
		if len(events) != 2 {
			t.Fatalf("%s: got the events %q, want two", use, events)
		}
		action := strings.Fields(events[0])[2]
		if again := strings.Fields(events[1])[2]; again != action {
			t.Errorf("%s: got the actions %s and %s for the same images and reason, want one", use, action, again)
		}
		if other, ok := seen[action]; ok {
			t.Errorf("got the action %s for both %s and %s, want two", action, use, other)
		}
		if seen[action] = use; len(action) > 128 || !strings.HasPrefix(action, "Admit/"+c.reason+"/") {
			t.Errorf("%s: got the action %q, want the reason in at most 128 bytes", use, action)
		}
	}
}

// An event refers to the workload of the request, whatever the object says. An object without a
// name has the prefix of its name.
func TestBreakGlassEventIsAboutTheWorkload(t *testing.T) {
	b := broken(t)
	d := object("Deployment", ciOnly)
	d.SetNamespace("kube-system")
	d.SetUID("1-2-3")
	review := request{kind: "Deployment", object: d, old: object("Deployment", pinned)}.review(t)
	wantAdmitted(t, b.send(t, ValidatePath, review))
	unnamed := object("Pod", ciOnly)
	unnamed.SetName("")
	unnamed.SetGenerateName("acme-7f9-")
	review = request{kind: "Pod", object: unnamed}.review(t)
	review.Request.Name = ""
	wantAdmitted(t, b.send(t, ValidatePath, review))
	events := b.events.all()
	if len(events) != 2 || !strings.Contains(events[0], " apps/v1 Deployment shop/acme(1-2-3): ") ||
		!strings.Contains(events[1], " Pod shop/acme-7f9-: ") {
		t.Errorf("got the events %q, want one about each workload", events)
	}
}

// Each answer has its metric label.
func TestOutcomes(t *testing.T) {
	pod := func(image string) request { return request{kind: "Pod", object: object("Pod", image)} }
	fault := newBench(t)
	fault.root.answers(nil, trust.NewFault(v1alpha1.ReasonTimeout, "no answer"))
	panics := newBench(t)
	panics.root.answers(panicking{}, nil)
	for want, answer := range map[string]*admissionv1.AdmissionResponse{
		"admitted":                newBench(t).validate(t, pod(pinned)),
		"denied":                  newBench(t).validate(t, pod(ciOnly)),
		"could_not_check":         fault.validate(t, pod(pinned)),
		"could_not_check, panics": panics.validate(t, pod(pinned)),
		"unreadable":              newBench(t).validate(t, request{kind: "Pod", object: `{}`}),
		"break_glass":             broken(t).validate(t, pod(ciOnly)),
	} {
		want, _, _ = strings.Cut(want, ",")
		if got := outcome(admissionResponse(answer)); got != want {
			t.Errorf("got %q, want %q for %+v", got, want, answer)
		}
	}
	if got := outcome(admissionResponse(&admissionv1.AdmissionResponse{})); got != "could_not_check" {
		t.Errorf("the zero answer: got %q, want could_not_check", got)
	}
}
