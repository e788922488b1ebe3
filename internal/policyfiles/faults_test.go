package policyfiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const policy = `apiVersion: countersign.dev/v1alpha1
kind: ImagePolicy
metadata: {name: prod}
spec: {images: [example.com/**], trustRoots: [acme], requiredRoles: [{role: qa}]}
`

// Each fault is one line that names the file, the document, the object and the field.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown field": {
			strings.Replace(policy, "images:", "image: x, images:", 1),
			`document 1: ImagePolicy "prod": unknown field "spec.image"`,
		},
		"missing field": {
			strings.Replace(policy, "role: qa", "", 1), `spec.requiredRoles[0]`,
		},
		"unknown version": {strings.Replace(policy, "v1alpha1", "v9", 1), `has no kind "ImagePolicy"`},
		"unknown kind":    {strings.Replace(policy, "ImagePolicy", "ImagePolicies", 1), `has no kind "ImagePolicies"`},
		"repeated key":    {policy + "kind: TrustRoot\n", `key "kind" already set in map`},
		"no name":         {strings.Replace(policy, "name: prod", "generateName: prod-", 1), "metadata.name: Required"},
		"twice":           {policy + "---\n" + strings.Replace(policy, "qa", "ci", 1), "with other content"},
		"unknown field of a Secret": {
			"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringDat: {a: b}\n", `unknown field "stringDat"`,
		},
		"a key of a ConfigMap": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\ndata: {\"a b\": c}\n", "data[a b]",
		},
		"a template": {"{{ if .Values.x }}\n" + policy + "{{ end }}\n", "render its templates first"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "p.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(t.Context(), []string{file}, Options{Namespace: "operator"})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), file) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line that begins with the file and has %q", err, c.want)
			}
		})
	}
}

// A Secret without a namespace is one of the operator's, and its stringData count.
func TestReader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.yaml")
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n---\n" +
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := Read(t.Context(), []string{file}, Options{Namespace: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: "operator", Name: "s"}
	if err := set.Reader().Get(t.Context(), key, &secret); err != nil || string(secret.Data["a"]) != "b" {
		t.Errorf("got %v, %v, want the entry a: b", secret.Data, err)
	}
	key.Namespace = "shop"
	if err := set.Reader().Get(t.Context(), key, &secret); !apierrors.IsNotFound(err) {
		t.Errorf("in another namespace: got %v, want not found", err)
	}
	var all corev1.NamespaceList
	if err := set.Reader().List(t.Context(), &all); err != nil || len(all.Items) != 1 ||
		all.Items[0].Labels[corev1.LabelMetadataName] != "shop" {
		t.Errorf("got %v, %v, want the namespace shop with the label of its name", all.Items, err)
	}
}
