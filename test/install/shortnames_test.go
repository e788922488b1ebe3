package install

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// shortNamed is an image name without a registry. No pattern of the policy covers it as a name on
// docker.io.
const shortNamed = "acme/app:v1"

// shortNamedPod returns a Pod of that image. If the name ends in "-", it is the prefix of a
// generated name.
func shortNamedPod(name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: covered, Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: shortNamed}}},
	}
	if strings.HasSuffix(name, "-") {
		p.GenerateName, p.Name = name, ""
	}
	return p
}

// shortNamesDenied returns nil if a short name is denied for being one.
func (b *bed) shortNamesDenied(t *testing.T) error {
	t.Helper()
	const want = `image "acme/app:v1": ImagePolicy "everything": it names no registry, and a node may pull it from any that it searches (--short-names=Deny); write docker.io/acme/app:v1 or the registry that you mean`
	err := b.Create(t.Context(), shortNamedPod("p-"), client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), want) {
		return fmt.Errorf("got %w, want a denial with %q", err, want)
	}
	return nil
}

// shortNamesAllowed returns nil if a short name that no pattern covers is admitted.
func (b *bed) shortNamesAllowed(t *testing.T) error {
	t.Helper()
	return b.Create(t.Context(), shortNamedPod("p-"), client.DryRunAll)
}

// ranShortNamed creates a Pod with a short name before the policy. It returns a function that
// checks that the policy's status lists the Pod.
func (b *bed) ranShortNamed(t *testing.T) (wantViolation func()) {
	t.Helper()
	before := shortNamedPod("short")
	must(t, b.Create(t.Context(), before))
	return func() {
		t.Helper()
		defer func() { must(t, b.Delete(t.Context(), before, client.GracePeriodSeconds(0))) }()
		poll.Await(t, "the violation", func() error {
			var p v1alpha1.ImagePolicy
			if err := b.Get(t.Context(), client.ObjectKey{Name: "everything"}, &p); err != nil {
				return err
			}
			for _, v := range p.Status.Violations {
				if v.Name == before.Name && v.Image == shortNamed && v.Reason == v1alpha1.ReasonShortName {
					return nil
				}
			}
			return fmt.Errorf("got status %+v", p.Status)
		})
	}
}
