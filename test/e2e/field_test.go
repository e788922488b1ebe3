package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
)

// TestField tests situations that users of admission gates have reported.
func TestField(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	t.Run("applied again after the tag moved", b.testAppliedAgain)
	t.Run("a port as it is written", b.testPortAsWritten)
	t.Run("a server that is no Notary server", b.testNoNotaryServer)
	t.Run("controllers that compare their Pods", b.testComparing) // the last, since it edits the policy
}

// template returns the Pod template of a Deployment or a Job.
func template(o client.Object) *corev1.PodTemplateSpec {
	if job, ok := o.(*batchv1.Job); ok {
		return &job.Spec.Template
	}
	return &o.(*appsv1.Deployment).Spec.Template
}

// testAppliedAgain applies the same manifests again after another digest was signed for their tag.
// A Job keeps its digest, and a Deployment rolls out the new one.
func (b *bed) testAppliedAgain(t *testing.T) {
	gun, first, policy := b.pinning(t, "again", v1alpha1.PinAll)
	b.enforce(t, policy)
	apply := map[string][]string{"by-client": {"apply"}, "by-server": {"apply", "--server-side"}}
	manifests, before := map[string]string{}, map[string]client.Object{}
	for by, command := range apply {
		for _, kind := range []string{"Job", "Deployment"} {
			o := workloads(gun + ":v1")[kind]
			o.SetGenerateName("")
			o.SetName(strings.ToLower(kind) + "-" + by)
			o.GetObjectKind().SetGroupVersionKind(map[string]schema.GroupVersionKind{
				"Job":        {Group: "batch", Version: "v1", Kind: kind},
				"Deployment": {Group: "apps", Version: "v1", Kind: kind},
			}[kind])
			raw, err := json.Marshal(o)
			must(t, err)
			manifests[o.GetName()], before[o.GetName()] = string(raw), o
			b.kubectl(t, string(raw), command...)
			b.unchanged(t, o, gun+":v1@"+first)
		}
	}

	second := b.sign(t, gun, "v1", 2, "ci", "qa")
	// Without this the manager could learn of the second digest between pinning and validation.
	b.fetchNow(t, gun)
	fresh := workloads(gun + ":v1")["Job"]
	must(t, b.Create(t.Context(), fresh, client.DryRunAll))
	if got, want := template(fresh).Spec.Containers[0].Image, gun+":v1@"+second; got != want {
		t.Errorf("a new Job: got image %s, want %s", got, want)
	}
	for by, command := range apply {
		for _, kind := range []string{"job", "deployment"} {
			name := kind + "-" + by
			b.kubectl(t, manifests[name], command...)
			if kind == "job" {
				b.unchanged(t, before[name], gun+":v1@"+first)
				continue
			}
			must(t, b.Get(t.Context(), client.ObjectKeyFromObject(before[name]), before[name]))
			if got, want := template(before[name]).Spec.Containers[0].Image, gun+":v1@"+second; got != want {
				t.Errorf("%s: got image %s, want %s", name, got, want)
			}
		}
	}
}

// unchanged checks that an object has an image and is still in its first generation.
func (b *bed) unchanged(t *testing.T, o client.Object, image string) {
	t.Helper()
	must(t, b.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	if got := template(o).Spec.Containers[0].Image; got != image || o.GetGeneration() != 1 {
		t.Errorf("%s: got image %s in generation %d, want %s in generation 1", o.GetName(), got, o.GetGeneration(),
			image)
	}
}

// testPortAsWritten signs a repository under two spellings of its registry: with and without port
// 443. They are two repositories.
func (b *bed) testPortAsWritten(t *testing.T) {
	ported, plain := registry+":443/acme/ported", registry+"/acme/ported"
	_, err := b.signer.CreateRepository(t.Context(), ported, "ci", "qa")
	must(t, err)
	digest := b.sign(t, ported, "v1", 1, "ci", "qa")
	wantImage := func(image, want string) {
		t.Helper()
		p := pod(production, image)
		b.admitted(t, p)
		if got := p.Spec.Containers[0].Image; got != want {
			t.Errorf("got stored image %q, want %q", got, want)
		}
	}
	wantImage(ported+":v1", ported+":v1@"+digest)
	wantImage(ported+"@"+digest, ported+"@"+digest)
	b.denied(t, pod(production, ported+":unsigned"), http.StatusForbidden, `ImagePolicy "production"`,
		`role "ci" has not signed`)
	b.denied(t, pod(production, plain+":v1"), http.StatusForbidden, `ImagePolicy "production"`,
		"no trust data for this repository")
	b.denied(t, pod(production, plain+"@"+digest), http.StatusForbidden, `ImagePolicy "production"`,
		"no trust data for this repository")

	_, err = b.signer.CreateRepository(t.Context(), plain, "ci", "qa")
	must(t, err)
	other := b.sign(t, plain, "v1", 2, "ci", "qa")
	b.fetchNow(t, plain)
	wantImage(plain+":v1", plain+":v1@"+other)
	wantImage(ported+":v1", ported+":v1@"+digest)
	b.denied(t, pod(production, ported+"@"+other), http.StatusForbidden, `role "ci" has not signed`)
	b.denied(t, pod(production, plain+"@"+digest), http.StatusForbidden, `role "ci" has not signed`)
}

// testNoNotaryServer points TrustRoots at servers that are no Notary server. The manager must
// report a fault and no verdict.
func (b *bed) testNoNotaryServer(t *testing.T) {
	images := registryserver.Run(t)
	below := b.trustRoot("below")
	below.Spec.Notary.Server = b.notary.URL + "/v2/"
	if err := b.Create(t.Context(), below); !apierrors.IsInvalid(err) ||
		!strings.Contains(err.Error(), "drop /v2 from its end") {
		t.Errorf("a server URL that ends in /v2/: got %v, want an Invalid error", err)
	}
	for name, server := range map[string]struct {
		url string
		ca  []byte
	}{
		"wrong-path":     {b.notary.URL + "/notary", b.notary.CA.PEM},
		"image-registry": {"https://" + images.Host, images.CA.PEM},
	} {
		t.Run(name, func(t *testing.T) {
			gun := registry + "/" + name + "/app"
			_, err := b.signer.CreateRepository(t.Context(), gun, "ci", "qa")
			must(t, err)
			digest := b.sign(t, gun, "v1", 1, "ci", "qa")
			b.admitted(t, running(production, name+"-from-before", gun+":v1"))
			root := b.trustRoot(name)
			root.Spec.Notary.Server, root.Spec.Notary.CABundle = server.url, v1alpha1.PEMBundle(server.ca)
			b.create(t, root)
			t.Log(
				b.condition(t, root, name, v1alpha1.ConditionFresh, metav1.ConditionFalse,
					v1alpha1.ReasonUnexpectedAnswer))
			b.create(t, b.policy(name, registry+"/"+name+"/**", name, "ci", "qa"))
			b.ready(t, &v1alpha1.ImagePolicy{}, name, metav1.ConditionTrue, v1alpha1.ReasonInForce)
			b.couldNotCheck(t, name, gun)

			b.update(t, root, func() { root.Spec.Notary = b.trustRoot(name).Spec.Notary })
			poll.Await(t, "the corrected server", func() error {
				p := pod(production, gun+":v1")
				if err := b.Create(t.Context(), p); err != nil {
					return err
				}
				if got := p.Spec.Containers[0].Image; got != gun+":v1@"+digest {
					return fmt.Errorf("got stored image %q", got)
				}
				return nil
			})
			b.denied(t, pod(production, gun+":unsigned"), http.StatusForbidden, `role "qa" has not signed`)
		})
	}
}

// couldNotCheck checks that a policy gives no verdict: not in kubectl's output, the metrics or the
// status. The TrustRoot of the policy has the same name.
func (b *bed) couldNotCheck(t *testing.T, policy, gun string) {
	t.Helper()
	for _, tag := range []string{"v1", "unsigned"} {
		out, denied := b.printed(t, policy+"-"+tag, gun+":"+tag)
		if !denied || !strings.HasPrefix(out, "Error from server (ServiceUnavailable): ") ||
			strings.Contains(out, "has not signed") ||
			!strings.Contains(out, fmt.Sprintf("TrustRoot %q", policy)) ||
			!strings.Contains(out, "spec.notary.server") {
			t.Errorf("got denied %t and kubectl output %s, want a denial with a fault of spec.notary.server",
				denied, out)
		}
		b.denied(t, pod(production, gun+":"+tag), http.StatusServiceUnavailable, fmt.Sprintf("TrustRoot %q", policy))
	}
	decisions := 0.
	for series, n := range b.scrape(t) {
		if !strings.HasPrefix(series, "countersign_decisions_total{") ||
			!strings.Contains(series, fmt.Sprintf("policy=%q", policy)) {
			continue
		}
		if n > 0 && !strings.Contains(series, `reason="UnexpectedAnswer",verdict="CouldNotCheck"`) {
			t.Errorf("got %s %v, want no decision but CouldNotCheck", series, n)
		}
		decisions += n
	}
	if decisions < 4 {
		t.Errorf("got %v counted decisions, want at least 4", decisions)
	}
	p := b.found(t, policy, v1alpha1.WorkloadCounts{Covered: 1, Unchecked: 1}, metav1.ConditionUnknown,
		v1alpha1.ReasonNotAllChecked)
	if len(p.Status.Violations) > 0 {
		t.Errorf("got violations %v, want none", p.Status.Violations)
	}
}
