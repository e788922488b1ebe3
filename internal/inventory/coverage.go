package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
)

// Coverage is what runs, and which of it no policy covers.
type Coverage struct {
	// Pods, Workloads and Images count what runs in the namespaces that are not exempt. An image in
	// two namespaces counts twice.
	Pods      int `json:"pods"`
	Workloads int `json:"workloads"`
	Images    int `json:"images"`
	// Uncovered are the images that no policy covers, by namespace, workload and image.
	Uncovered []Uncovered `json:"uncovered"`
	// ExemptNamespaces are the namespaces for which the API server does not call the gate.
	ExemptNamespaces []string `json:"exemptNamespaces"`
}

// Uncovered is an image of a workload that no policy covers.
type Uncovered struct {
	Namespace  string `json:"namespace"`
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Image      string `json:"image"`
}

// Cover returns which images that run are covered by no policy. A reference that cannot be parsed,
// and a short name where the policies distrust them, count as covered: every policy that holds in
// the namespace denies them. Without such a policy they are uncovered.
func (r *Running) Cover(policies *policy.Set) *Coverage {
	c := &Coverage{Pods: r.Count, Uncovered: []Uncovered{}, ExemptNamespaces: slices.Sorted(slices.Values(r.Exempt))}
	type used struct {
		workload compliance.Workload
		image    string
	}
	type target struct{ namespace, image string }
	workloads, uses, images := map[compliance.Workload]bool{}, map[used]bool{}, map[target]bool{}
	for _, p := range r.Pods {
		workloads[p.Workload] = true
		for _, image := range p.Images {
			at, use := target{p.Workload.Namespace, image.Spec}, used{p.Workload, image.Spec}
			covered, known := images[at]
			if !known {
				covered = covers(policies, image.Spec, r.Namespaces[at.namespace])
				images[at] = covered
			}
			if covered || uses[use] {
				continue
			}
			uses[use] = true
			c.Uncovered = append(c.Uncovered, Uncovered{
				p.Workload.Namespace, p.Workload.APIVersion, p.Workload.Kind, p.Workload.Name, image.Spec,
			})
		}
	}
	c.Workloads, c.Images = len(workloads), len(images)
	slices.SortFunc(c.Uncovered, func(a, b Uncovered) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind, b.Kind),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Image, b.Image))
	})
	return c
}

// covers reports whether a policy covers an image in a namespace of these labels.
func covers(policies *policy.Set, image string, namespace labels.Set) bool {
	ref, err := imageref.Parse(image)
	if err != nil || policies.Distrusts(ref) {
		return len(policies.HoldingIn(namespace)) > 0
	}
	return len(policies.Covering(ref, namespace)) > 0
}

// Application says whether a policy applies to an image in a namespace, and why.
type Application struct {
	Policy  string `json:"policy"`
	Mode    string `json:"mode"`
	Applies bool   `json:"applies"`
	// Why is one line.
	Why string `json:"why"`
}

// Apply says for each policy whether it applies to an image in a namespace of these labels, and
// why. shortNames is how the manager reads short names.
func Apply(policies []*v1alpha1.ImagePolicy, image imageref.Ref, namespace labels.Set,
	shortNames policy.ShortNames) []Application {
	all := make([]Application, 0, len(policies))
	for _, p := range policies {
		compiled, invalid := policy.Compile(p.Name, &p.Spec)
		set := policy.NewSet(policy.UncoveredAllow, []*policy.Policy{compiled}).ReadShortNames(shortNames)
		one := Application{Policy: p.Name, Mode: string(compiled.Mode())}
		one.Applies = compiled.HoldsIn(namespace) && (set.Distrusts(image) || len(set.Covering(image, namespace)) > 0)
		switch {
		case !compiled.HoldsIn(namespace):
			one.Why = "its namespaceSelector (" + selector(p.Spec.NamespaceSelector) + ") does not select the namespace"
		case set.Distrusts(image):
			one.Why = "it holds in the namespace, and short names fail every policy there (--short-names=Deny)"
		case invalid != nil:
			one.Why = fmt.Sprintf("it cannot be used, so it denies every image that it could mean: %v", invalid)
		default:
			one.Why = why(&p.Spec, image)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Application) int { return strings.Compare(a.Policy, b.Policy) })
	return all
}

// why explains whether the patterns of a valid policy cover an image.
func why(spec *v1alpha1.ImagePolicySpec, image imageref.Ref) string {
	pattern := matching(spec.Images, image)
	if pattern == "" {
		return "no pattern of images matches " + image.Repository()
	}
	if except := matching(spec.ExceptImages, image); except != "" {
		return fmt.Sprintf("exceptImages has %q, which matches", except)
	}
	where := "it holds in every namespace"
	if spec.NamespaceSelector != nil {
		where = "its namespaceSelector (" + selector(spec.NamespaceSelector) + ") selects the namespace"
	}
	return fmt.Sprintf("images has %q, which matches, and %s", pattern, where)
}

// matching returns the first pattern that matches an image, or an empty string.
func matching(patterns []v1alpha1.ImagePattern, image imageref.Ref) string {
	for _, p := range patterns {
		if parsed, err := imageref.ParsePattern(string(p)); err == nil && parsed.Match(image) {
			return string(p)
		}
	}
	return ""
}

// selector returns a namespace selector as kubectl writes it.
func selector(s *v1alpha1.NamespaceSelector) string {
	if s == nil {
		return "every namespace"
	}
	return metav1.FormatLabelSelector(s.LabelSelector())
}
