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

// testPinnedByNobody has a Deployment from before the policy that names a digest which nobody
// signed. The clean manifest takes it away, and where that is not signed either it is denied.
func (b *bed) testPinnedByNobody(t *testing.T) {
	gun, digest, policy := b.pinning(t, "nobody", v1alpha1.PinAll)
	nobodys := "@sha256:" + strings.Repeat("e", 64)
	signed, other := deployment("from-before", gun+":v1"+nobodys), deployment("from-before-unsigned",
		gun+":unsigned"+nobodys)
	b.admitted(t, signed)
	b.admitted(t, other)
	b.enforce(t, policy)
	c, heard := b.listening(t)
	apply := func(name, image string) error {
		d := deployment(name, image)
		return c.Patch(t.Context(), d, client.Apply, //nolint:staticcheck // of a typed object
			client.FieldOwner("test"), client.ForceOwnership)
	}
	must(t, apply("from-before", gun+":v1"))
	if got := strings.Join(heard.all(), "\n"); !strings.Contains(got, nobodys) || !strings.Contains(got, digest) {
		t.Errorf("warnings %q name not both digests", got)
	}
	must(t, b.Get(t.Context(), client.ObjectKeyFromObject(signed), signed))
	if got := signed.Spec.Template.Spec.Containers[0].Image; got != gun+":v1@"+digest {
		t.Errorf("the template's image is %q", got)
	}
	refused(t, apply("from-before-unsigned", gun+":unsigned"), http.StatusForbidden, gun+":unsigned", "has not signed")
	must(t, b.Get(t.Context(), client.ObjectKeyFromObject(other), other))
	if got := other.Spec.Template.Spec.Containers[0].Image; got != gun+":unsigned"+nobodys {
		t.Errorf("the template's image is %q", got)
	}
}

// testPinnedJob applies a Job again, and once more after its tag was signed for another digest,
// which takes the signatures off the first: the Job cannot be changed, so it stays as it is, and
// the user hears why.
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
	c, heard := b.listening(t)
	apply := func() error {
		return c.Patch(t.Context(), job(), client.Apply, //nolint:staticcheck // of a typed object
			client.FieldOwner("test"), client.ForceOwnership)
	}
	for range 2 {
		must(t, apply())
	}
	if got := heard.all(); len(got) > 0 {
		t.Errorf("applied again: warnings %q", got)
	}
	next := b.sign(t, gun, "v1", 2, "ci", "qa")
	// Without this the manager could learn of the new digest between pinning and validation.
	b.fetchNow(t, gun)
	p := pod(production, gun+":v1")
	must(t, b.Create(t.Context(), p, client.DryRunAll))
	if got, want := p.Spec.Containers[0].Image, gun+":v1@"+next; got != want {
		t.Errorf("a Pod that is created now has image %q, want %q", got, want)
	}
	must(t, apply())
	if got := strings.Join(heard.all(), "\n"); !strings.Contains(got, digest) ||
		!strings.Contains(got, "a Job cannot be changed") {
		t.Errorf("warnings %q do not say that it stays as it is", got)
	}
	stored := job()
	b.update(t, stored, func() { stored.Labels = map[string]string{"seen": "yes"}; stored.Finalizers = nil })
	if got := stored.Spec.Template.Spec.Containers[0].Image; got != gun+":v1@"+digest {
		t.Errorf("with another label, the image is %q", got)
	}
}
