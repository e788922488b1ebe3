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

// another is the CRD of another product. It has the plural, kind and short name of ours, in the API
// group of OpenShift's own configuration.
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

// platformNamespaces says of each name whether it is a namespace of OpenShift.
var platformNamespaces = map[string]bool{
	"openshift": true, "openshift-ingress": true, "openshifty": false, "my-openshift-app": false,
}

// namespaces creates the namespaces of platformNamespaces if they are missing.
func (b *bed) namespaces(t *testing.T) {
	t.Helper()
	for name := range platformNamespaces {
		must(t,
			client.IgnoreAlreadyExists(
				b.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})))
		b.serviceAccount(t, name)
	}
}

// testNoOpenShift checks that without OpenShift no namespace is exempt because of its name.
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

// testBesideOthers installs beside an API with the same plural, in OpenShift's group. OpenShift's
// namespaces must then be exempt, also while the operator is dead. Short names must not be trusted
// unless a flag allows that.
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
		t.Errorf("our policies: got %q (%v), want everything", out, err)
	}
	if out, err = b.kube.RunKubectl(t.Context(), "", "get", "imagepolicies.config.openshift.io", "-A", "-o",
		"name"); err != nil || strings.TrimSpace(out) != "imagepolicy.config.openshift.io/theirs" {
		t.Errorf("their policies: got %q (%v), want theirs", out, err)
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
