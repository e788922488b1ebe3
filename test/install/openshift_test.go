package install

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/testenv/poll"
)

// another is an API of another product that has the plural, the kind and the short name of ours, in
// the group that OpenShift configures itself with.
const another = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: imagepolicies.config.openshift.io
  annotations: {api-approved.kubernetes.io: "unapproved, a test"}
spec:
  group: config.openshift.io
  scope: Namespaced
  names: {kind: ImagePolicy, listKind: ImagePolicyList, plural: imagepolicies, singular: imagepolicy, shortNames: [imgpol]}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

// platformNamespaces are those of OpenShift, and those that look like them and are not.
var platformNamespaces = map[string]bool{
	"openshift": true, "openshift-ingress": true, "openshifty": false, "my-openshift-app": false,
}

func (b *bed) namespaces(t *testing.T) {
	t.Helper()
	for name := range platformNamespaces {
		must(t,
			client.IgnoreAlreadyExists(
				b.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})))
		poll.Await(t, "the service account of "+name, func() error {
			return b.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{})
		})
	}
}

// testNoOpenShift wants no namespace exempt for its name where the cluster is none of OpenShift's.
func (b *bed) testNoOpenShift(t *testing.T) {
	b.namespaces(t)
	b.install(t)
	defer b.uninstall(t)
	b.manager(t)
	b.policy(t)
	for name := range platformNamespaces {
		must(t, b.shut(t, name))
	}
	must(t, b.shortNamesAllowed(t))
}

// testBesideOthers installs beside another API of the same plural. Its group is that of OpenShift,
// whose own namespaces are then exempt, also while the operator is dead, and short names are not
// trusted unless a flag says so.
func (b *bed) testBesideOthers(t *testing.T) {
	out, err := b.kube.RunKubectl(t.Context(), another, "apply", "-f", "-")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defer func() {
		_, err := b.kube.RunKubectl(t.Context(), another, "delete", "-f", "-")
		must(t, err)
	}()
	poll.Await(t, "an object of the other API", func() error {
		_, err := b.kube.RunKubectl(t.Context(),
			`{"apiVersion": "config.openshift.io/v1", "kind": "ImagePolicy", "metadata": {"name": "theirs", "namespace": "shop"}}`,
			"apply",
			"-f", "-")
		return err
	})
	b.namespaces(t)
	b.install(t)
	defer b.uninstall(t)
	wantViolation := b.ranShortNamed(t)
	m := b.manager(t)
	b.policy(t)
	if out, err = b.kube.RunKubectl(t.Context(), "", "get", "imagepolicies.countersign.dev", "-o",
		"name"); err != nil || strings.TrimSpace(out) != "imagepolicy.countersign.dev/everything" {
		t.Errorf("our policies: %v, %q", err, out)
	}
	if out, err = b.kube.RunKubectl(t.Context(), "", "get", "imagepolicies.config.openshift.io", "-A", "-o",
		"name"); err != nil || strings.TrimSpace(out) != "imagepolicy.config.openshift.io/theirs" {
		t.Errorf("their policies: %v, %q", err, out)
	}
	wanted := func(t *testing.T) {
		for name, exempt := range platformNamespaces {
			poll.Await(t, fmt.Sprintf("%s to be exempt: %t", name, exempt), func() error {
				if exempt {
					return b.open(t, name)
				}
				return b.shut(t, name)
			})
		}
	}
	t.Run("exempt", wanted)
	t.Run("short names", func(t *testing.T) {
		must(t, b.shortNamesDenied(t))
		wantViolation()
	})
	must(t, m.Kill())
	t.Run("exempt, operator dead", wanted)
	b.manager(t, "--short-names=DockerIO")
	t.Run("short names, by the flag", func(t *testing.T) {
		poll.Await(t, "a short name to be admitted", func() error { return b.shortNamesAllowed(t) })
	})
}
