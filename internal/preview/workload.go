package preview

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/decision"
	"github.com/countersign-dev/countersign/internal/policy"
)

// Judgement is what the gate would answer to the creation of one workload. Its zero value denies.
type Judgement struct {
	// Verdict is Denied if an image is, else CouldNotCheck if an image could not be checked.
	Verdict policy.Verdict
	// Reason is why the images were not decided on: the namespace is exempt, or its labels are not
	// known. Or it says that break-glass is on, which admits what would be denied.
	Reason string
	// Images are the distinct images, in the order of the workload.
	Images []ImageJudgement
}

// ImageJudgement is the decision on one image. Its Verdict denies as that of a Decision does.
type ImageJudgement struct {
	// Image is the reference as it is written.
	Image string
	// Decision is what was decided. If the Judgement has a Reason and break-glass is off, it is
	// empty but for the Verdict.
	Decision policy.Decision
	// Warnings are those that the client would see.
	Warnings []string
}

// Judge decides on the images of one workload that is created in a namespace, as the gate does.
func (e *Engine) Judge(ctx context.Context, n Namespace, images []string) (Judgement, error) {
	distinct := distinct(images)
	switch reason := e.unknown(n); {
	case e.Exempt.Has(n.Name):
		return all(distinct, policy.Admitted, fmt.Sprintf("namespace %q is exempt: the gate checks nothing in it",
			n.Name)), nil
	case reason != "":
		return all(distinct, policy.CouldNotCheck, reason), nil
	}
	decided, err := e.Decide(ctx, n.Name, n.Labels, distinct)
	if err != nil {
		return Judgement{}, err
	}
	j := Judgement{Verdict: policy.Admitted}
	for _, image := range distinct {
		d := decided[image]
		one := ImageJudgement{Image: image, Decision: d, Warnings: d.Warnings}
		if w := decision.Unpinned(image, d); w != "" {
			one.Warnings = append(slices.Clone(one.Warnings), w)
		}
		j.Images = append(j.Images, one)
		j.Verdict = worse(j.Verdict, d.Verdict)
	}
	if reason := n.Labels[v1alpha1.LabelBreakGlass]; reason != "" && j.Verdict != policy.Admitted {
		j.Verdict = policy.Admitted
		j.Reason = fmt.Sprintf("break-glass is on in namespace %q (%s): admits what would be denied", n.Name, reason)
	}
	return j, nil
}

// unknown returns why the labels of a namespace are needed and not known; empty: they are known, or
// no policy depends on them. With too few labels, a policy that denies might not hold.
func (e *Engine) unknown(n Namespace) string {
	if n.Known {
		return ""
	}
	for _, p := range e.Source.ImagePolicies {
		if !selectsByLabels(p) {
			continue
		}
		if n.Err != nil {
			return n.Err.Error()
		}
		return fmt.Sprintf("the labels of namespace %q are not known, and ImagePolicy %q selects namespaces by them: "+
			"set them with --namespace-labels, or add the Namespace to the files", n.Name, p.Name)
	}
	return ""
}

// selectsByLabels reports whether a policy selects namespaces by more than their name.
func selectsByLabels(p *v1alpha1.ImagePolicy) bool {
	s := p.Spec.NamespaceSelector
	if s == nil {
		return false
	}
	for key := range s.MatchLabels {
		if key != corev1.LabelMetadataName {
			return true
		}
	}
	for i := range s.MatchExpressions {
		if s.MatchExpressions[i].Key != corev1.LabelMetadataName {
			return true
		}
	}
	return false
}

// all returns the same verdict on every image.
func all(images []string, v policy.Verdict, reason string) Judgement {
	j := Judgement{Verdict: v, Reason: reason}
	for _, image := range images {
		j.Images = append(j.Images, ImageJudgement{Image: image, Decision: policy.Decision{Verdict: v}})
	}
	return j
}

// worse returns the verdict on two: Denied before CouldNotCheck, and both before Admitted.
func worse(a, b policy.Verdict) policy.Verdict { return min(a, b) }

func distinct(images []string) []string {
	var found []string
	for _, image := range images {
		if !slices.Contains(found, image) {
			found = append(found, image)
		}
	}
	return found
}
