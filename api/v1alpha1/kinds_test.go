package v1alpha1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

func TestDefaults(t *testing.T) {
	c := server(t)
	t.Run("ImagePolicy", func(t *testing.T) {
		policy := &v1alpha1.ImagePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "defaults"},
			Spec: v1alpha1.ImagePolicySpec{
				Images:        []v1alpha1.ImagePattern{"nginx"},
				TrustRoots:    []v1alpha1.ObjectName{"acme-notary"},
				RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}},
			},
		}
		want := policy.DeepCopy().Spec
		want.Mode, want.PinDigests = v1alpha1.ModeEnforce, v1alpha1.PinPods
		if err := c.Create(t.Context(), policy, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, policy.Spec); diff != "" {
			t.Errorf("spec as kept (-want +got):\n%s", diff)
		}
	})
	t.Run("TrustRoot", func(t *testing.T) {
		root := &v1alpha1.TrustRoot{
			ObjectMeta: metav1.ObjectMeta{Name: "defaults"},
			Spec: v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
				Server: "https://notary.example.com",
				Root:   v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(strings.Repeat("a", 64))}},
				Roles:  []v1alpha1.NotaryRole{{Name: "qa"}},
			}},
		}
		want := root.DeepCopy().Spec
		want.RefreshInterval = metav1.Duration{Duration: 5 * time.Minute}
		want.Notary.PlainHTTP = v1alpha1.PlainHTTPForbid
		want.Notary.Roles[0].Threshold = 1
		if err := c.Create(t.Context(), root, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, root.Spec); diff != "" {
			t.Errorf("spec as kept (-want +got):\n%s", diff)
		}
	})
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	tests := map[string]struct {
		kind  string
		base  func() spec
		field string
	}{
		"policy":        {"ImagePolicy", policySpec, "requiredRole"},
		"policy tags":   {"ImagePolicy", policySpec, "tags"},
		"trust root":    {"TrustRoot", rootSpec, "sigstor"},
		"in the notary": {"TrustRoot", rootSpec, "notary.insecureSkipVerify"},
	}
	c := server(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := test.base()
			s.set(test.field, "x")
			err := submit(t, c, test.kind, s)
			if want := fmt.Sprintf("unknown field \"spec.%s\"", test.field); err == nil ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want a refusal that says %s", err, want)
			}
		})
	}
}

// The operator can decode every object that the CRD accepts. A single one that it cannot decode
// would break its watch of all objects.
func TestAcceptedObjectsDecode(t *testing.T) {
	c := server(t)
	intervals := []string{"30s", "24h", "1440m", "1h30m", "90.5s", "0h30s", "86400000ms"}
	for _, interval := range intervals {
		s := rootSpec()
		s.set("refreshInterval", interval)
		if err := submit(t, c, "TrustRoot", s); err != nil {
			t.Errorf("%s: got %v, want it accepted", interval, err)
			continue
		}
		content, err := json.Marshal(map[string]any{"spec": s})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(content, &v1alpha1.TrustRoot{}); err != nil {
			t.Errorf("%s: the API server accepts it; got %v from the decoder, want nil", interval, err)
		}
	}
	for _, interval := range []string{
		"1d", "1 day", "1w", "P1D", "-30s", "+30s", "30", "", "1e3s", "29.9s", "24h1ms", "9999999999999h",
	} {
		s := rootSpec()
		s.set("refreshInterval", interval)
		if err := submit(t, c, "TrustRoot", s); !apierrors.IsInvalid(err) {
			t.Errorf("%q got %v, want it refused", interval, err)
		}
	}
}

func TestNames(t *testing.T) {
	tests := map[string]metav1.APIResource{
		"imagepolicies": {
			Name: "imagepolicies", SingularName: "imagepolicy", Kind: "ImagePolicy", ShortNames: []string{"imgpol"},
		},
		"trustroots": {
			Name: "trustroots", SingularName: "trustroot", Kind: "TrustRoot", ShortNames: []string{"troot"},
		},
	}
	resources := &metav1.APIResourceList{}
	get(t, "/apis/countersign.dev/v1alpha1", "application/json", resources)
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(resources.APIResources, func(r metav1.APIResource) bool { return r.Name == name })
			if i < 0 {
				t.Fatalf("got the resources %v, want %s among them", resources.APIResources, name)
			}
			got := resources.APIResources[i]
			if !slices.Contains(got.Categories, "countersign") {
				t.Errorf("categories are %v, want countersign among them", got.Categories)
			}
			if !slices.Contains(got.Verbs, "watch") {
				t.Errorf("verbs are %v, want watch among them", got.Verbs)
			}
			got.Categories, got.Verbs, got.StorageVersionHash = nil, nil, ""
			if diff := cmp.Diff(want, got); diff != "" { // not namespaced
				t.Errorf("resource as served (-want +got):\n%s", diff)
			}
		})
	}
}

// get sends a GET request to the API server, for answers that no typed client returns.
func get(t *testing.T, path, accept string, into any) {
	t.Helper()
	config := rest.CopyConfig(kube.Config)
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	c, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	content, err := c.Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
}

// columns returns the cells of the only row of a kind's table, by column, and the columns that
// kubectl prints with -o wide only.
func columns(t *testing.T, resource string) (cells map[string]any, wide []string) {
	t.Helper()
	table := &metav1.Table{}
	get(t, "/apis/countersign.dev/v1alpha1/"+resource, "application/json;as=Table;v=v1;g=meta.k8s.io", table)
	if len(table.Rows) != 1 {
		t.Fatalf("the table of %s has %d rows, want 1", resource, len(table.Rows))
	}
	cells = map[string]any{}
	for i, column := range table.ColumnDefinitions {
		cells[strings.ToUpper(column.Name)] = table.Rows[0].Cells[i]
		if column.Priority > 0 {
			wide = append(wide, strings.ToUpper(column.Name))
		}
	}
	return cells, wide
}

// create creates an object with its status, and deletes it at the end of the test.
func create(t *testing.T, c client.Client, object client.Object, status func()) {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	status()
	if err := c.Status().Update(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func TestColumnsOfImagePolicy(t *testing.T) {
	policy := &v1alpha1.ImagePolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "production"},
		Spec: v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{"registry.example.com/acme/**"},
			TrustRoots:    []v1alpha1.ObjectName{"acme-notary", "acme-old"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
		},
	}
	create(t, server(t), policy, func() {
		policy.Status.Roles, policy.Status.TrustRoots = "ci,qa", "acme-notary,acme-old"
		policy.Status.Workloads = &v1alpha1.WorkloadCounts{Covered: 12, Violating: 3}
		meta.SetStatusCondition(&policy.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse,
			Reason: v1alpha1.ReasonTrustRootNotFound, Message: `TrustRoot "acme-old" does not exist`,
		})
		meta.SetStatusCondition(&policy.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionCompliant, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNotAllChecked,
		})
		meta.SetStatusCondition(&policy.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionGated, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonConfigurationsInPlace,
		})
	})
	cells, wide := columns(t, "imagepolicies")
	delete(cells, "AGE")
	want := map[string]any{
		"NAME": "production", "MODE": "Enforce", "ROLES": "ci,qa", "READY": "False", "COVERED": 12.0, "VIOLATIONS": 3.0,
		"COMPLIANT": "Unknown", "GATED": "True",
		"TRUSTROOTS": "acme-notary,acme-old", "REASON": "TrustRootNotFound",
		"MESSAGE": `TrustRoot "acme-old" does not exist`,
	}
	if diff := cmp.Diff(want, cells); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"COMPLIANT", "GATED", "TRUSTROOTS", "REASON", "MESSAGE"}, wide); diff != "" {
		t.Errorf("columns of -o wide (-want +got):\n%s", diff)
	}
}

func TestColumnsOfTrustRoot(t *testing.T) {
	root := &v1alpha1.TrustRoot{
		ObjectMeta: metav1.ObjectMeta{Name: "acme-notary"},
		Spec: v1alpha1.TrustRootSpec{Notary: &v1alpha1.NotarySpec{
			Server: "https://notary.example.com",
			Root:   v1alpha1.NotaryRoot{KeyIDs: []v1alpha1.KeyID{v1alpha1.KeyID(strings.Repeat("a", 64))}},
		}},
	}
	create(t, server(t), root, func() {
		root.Status.Format, root.Status.Expires = "Notary", "2030-01-02T03:04:05Z"
		root.Status.Repositories = &v1alpha1.RepositoryStatus{Tracked: 12}
		meta.SetStatusCondition(&root.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPinned,
			Message: "1 root key",
		})
		meta.SetStatusCondition(&root.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionFresh, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonTimeout,
			Message: "no answer in 5s",
		})
	})
	cells, wide := columns(t, "trustroots")
	delete(cells, "AGE")
	want := map[string]any{
		"NAME": "acme-notary", "FORMAT": "Notary", "READY": "True", "FRESH": "False", "REPOSITORIES": float64(12),
		"EXPIRES": "2030-01-02T03:04:05Z", "REASON": "Timeout", "MESSAGE": "no answer in 5s",
	}
	if diff := cmp.Diff(want, cells); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"REASON", "MESSAGE"}, wide); diff != "" {
		t.Errorf("columns of -o wide (-want +got):\n%s", diff)
	}
}

func TestSamplesAreAccepted(t *testing.T) {
	c := server(t)
	paths, err := filepath.Glob(filepath.Join("..", "..", "config", "samples", "*.yaml"))
	if err != nil || len(paths) < 2 {
		t.Fatalf("found %d samples (%v), want one for each kind at least", len(paths), err)
	}
	formats := map[string]bool{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"notary", "sigstore", "notation", "simpleSigning", "tuf"} {
			if strings.Contains(string(content), "\n  "+format+":\n") {
				formats[format] = true
			}
		}
		t.Run(filepath.Base(path), func(t *testing.T) { accepts(t, c, string(content)) })
	}
	if len(formats) != 5 {
		t.Errorf("got samples of the formats %v, want one of each of the five", formats)
	}
}

// The API server accepts the examples in the documentation.
func TestDocumentedExamplesAreAccepted(t *testing.T) {
	c := server(t)
	for _, page := range []string{
		"README.md", "docs/spec/imagepolicy.md", "docs/spec/trustroot.md", "docs/sigstore.md", "docs/attestations.md",
		"docs/notation.md", "docs/simple-signing.md", "docs/tuf.md",
	} {
		content, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(page)))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, block := range strings.Split(string(content), "```yaml\n")[1:] {
			text, _, _ := strings.Cut(block, "```")
			for document := range strings.SplitSeq(text, "\n---\n") {
				if strings.Contains(document, "apiVersion: countersign.dev/") {
					found++
					t.Run(fmt.Sprintf("%s %d", page, found), func(t *testing.T) { accepts(t, c, document) })
				}
			}
		}
		if found == 0 {
			t.Errorf("%s: got no example, want one at least", page)
		}
	}
}

// accepts checks that the API server accepts an object in YAML, under strict validation.
func accepts(t *testing.T, c client.Client, content string) {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict([]byte(content), &object.Object); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), object, client.DryRunAll,
		client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		t.Errorf("got %v, want the object accepted", err)
	}
}

// Other projects have a resource "imagepolicies" too. Beside such a CRD, the full name still
// selects ours.
func TestFullNameBesideAnotherImagePolicies(t *testing.T) {
	c := server(t)
	other := readCRD(t, "ImagePolicy")
	other.Name, other.Spec.Group = "imagepolicies.config.example.com", "config.example.com"
	other.Spec.Names.ShortNames, other.Spec.Names.Categories = nil, nil
	// envtest waits until the API server serves the resource.
	if _, err := envtest.InstallCRDs(kube.Config, envtest.CRDInstallOptions{
		CRDs: []*apiextensionsv1.CustomResourceDefinition{other},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), other); err != nil {
			t.Error(err)
		}
	})
	ours := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any(policySpec())}}
	ours.SetAPIVersion("countersign.dev/v1alpha1")
	ours.SetKind("ImagePolicy")
	ours.SetName("ours")
	theirs := ours.DeepCopy()
	theirs.SetAPIVersion("config.example.com/v1alpha1")
	theirs.SetName("theirs")
	for _, object := range []client.Object{ours, theirs} {
		if err := c.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Delete(context.Background(), object); err != nil {
				t.Error(err)
			}
		})
	}
	for _, name := range []string{"imagepolicies.countersign.dev", "imgpol", "countersign"} {
		output, err := kubectl(t, "get", name, "-o", "name")
		if got, want := strings.TrimSpace(output), "imagepolicy.countersign.dev/ours"; err != nil || got != want {
			t.Errorf("kubectl get %s printed %q (%v), want %q", name, got, err, want)
		}
	}
}
