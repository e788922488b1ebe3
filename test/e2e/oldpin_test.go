package e2e

import (
	"net/http"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// testUnsignedPin applies a manifest with a tag over a Deployment that is older than the policy and
// names an unsigned digest. The apply replaces the digest. If the tag is not signed either, the
// apply is denied.
func (b *bed) testUnsignedPin(t *testing.T) {
	gun, digest, policy := b.pinning(t, "nobody", v1alpha1.PinAll)
	unsignedPin := "@sha256:" + strings.Repeat("e", 64)
	signed, other := deployment("from-before", gun+":v1"+unsignedPin), deployment("from-before-unsigned",
		gun+":unsigned"+unsignedPin)
	b.admitted(t, signed)
	b.admitted(t, other)
	b.enforce(t, policy)
	c, warned := b.withWarnings(t)
	apply := func(name, image string) error {
		d := deployment(name, image)
		return c.Patch(t.Context(), d, client.Apply, //nolint:staticcheck // of a typed object
			client.FieldOwner("test"), client.ForceOwnership)
	}
	must(t, apply("from-before", gun+":v1"))
	if got := strings.Join(warned.drain(), "\n"); !strings.Contains(got, unsignedPin) ||
		!strings.Contains(got, digest) {
		t.Errorf("got warnings %q, want them to name %s and %s", got, unsignedPin, digest)
	}
	must(t, b.Get(t.Context(), client.ObjectKeyFromObject(signed), signed))
	if got, want := signed.Spec.Template.Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
		t.Errorf("got the template's image %q, want %q", got, want)
	}
	refused(t, apply("from-before-unsigned", gun+":unsigned"), http.StatusForbidden, gun+":unsigned", "has not signed")
	must(t, b.Get(t.Context(), client.ObjectKeyFromObject(other), other))
	if got, want := other.Spec.Template.Spec.Containers[0].Image, gun+":unsigned"+unsignedPin; got != want {
		t.Errorf("got the template's image %q, want %q", got, want)
	}
}

// testPinnedJob applies a Job twice, and once more after a new digest was signed for its tag. The
// first digest is then no longer signed. The Job keeps it, because its template is immutable, and a
// warning says why.
func (b *bed) testPinnedJob(t *testing.T) {
	gun, digest, policy := b.pinning(t, "job", v1alpha1.PinAll)
	b.enforce(t, policy)
	job := func() *batchv1.Job {
		return &batchv1.Job{
			TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
			ObjectMeta: metav1.ObjectMeta{Namespace: production, Name: "pinned-job"},
			Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "app", Image: gun + ":v1"}},
			}}},
		}
	}
	c, warned := b.withWarnings(t)
	apply := func() error {
		return c.Patch(t.Context(), job(), client.Apply, //nolint:staticcheck // of a typed object
			client.FieldOwner("test"), client.ForceOwnership)
	}
	for range 2 {
		must(t, apply())
	}
	if got := warned.drain(); len(got) > 0 {
		t.Errorf("applied twice: got warnings %q, want none", got)
	}
	next := b.sign(t, gun, "v1", 2, "ci", "qa")
	// Without this the manager could learn of the new digest between pinning and validation.
	b.fetchNow(t, gun)
	p := pod(production, gun+":v1")
	must(t, b.Create(t.Context(), p, client.DryRunAll))
	if got, want := p.Spec.Containers[0].Image, gun+":v1@"+next; got != want {
		t.Errorf("a new Pod: got image %q, want %q", got, want)
	}
	must(t, apply())
	if got := strings.Join(warned.drain(), "\n"); !strings.Contains(got, digest) ||
		!strings.Contains(got, "a Job cannot be changed") {
		t.Errorf("got warnings %q, want one that the Job keeps %s", got, digest)
	}
	stored := job()
	b.update(t, stored, func() { stored.Labels = map[string]string{"seen": "yes"}; stored.Finalizers = nil })
	if got, want := stored.Spec.Template.Spec.Containers[0].Image, gun+":v1@"+digest; got != want {
		t.Errorf("after a change of labels: got image %q, want %q", got, want)
	}
}
