package inventory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

// The verdicts on a workload under one policy.
const (
	VerdictMeets         = "meets"
	VerdictViolates      = "violates"
	VerdictCouldNotCheck = "couldNotCheck"
	VerdictNotCovered    = "notCovered"
)

// The changes of an object.
const (
	ChangeAdded     = "added"
	ChangeEdited    = "edited"
	ChangeUnchanged = "unchanged"
	// ChangeTrustRoot says that the policy is unchanged, and one of its trust roots is not.
	ChangeTrustRoot = "trustRoot"
)

// Edit is what files change of the policies in force.
type Edit struct {
	// After are the policies and trust roots that would be in force.
	After Policies
	// Policies are the concerned policies: those of the files, and those whose trust roots are in
	// the files. The value is one of the changes.
	Policies map[string]string
	// Roots says that a trust root is added or changed.
	Roots bool
}

// Edit returns the policies that would be in force if those of files were applied.
func (p Policies) Edit(files Policies) Edit {
	e := Edit{Policies: map[string]string{}}
	roots := map[string]bool{}
	e.After.TrustRoots = edited(p.TrustRoots, files.TrustRoots, func(old, updated *v1alpha1.TrustRoot) {
		if old == nil || !equality.Semantic.DeepEqual(old.Spec, updated.Spec) {
			e.Roots = true
		}
		roots[updated.Name] = true
	})
	e.After.ImagePolicies = edited(p.ImagePolicies, files.ImagePolicies, func(old, updated *v1alpha1.ImagePolicy) {
		switch {
		case old == nil:
			e.Policies[updated.Name] = ChangeAdded
		case equality.Semantic.DeepEqual(old.Spec, updated.Spec):
			e.Policies[updated.Name] = ChangeUnchanged
		default:
			e.Policies[updated.Name] = ChangeEdited
		}
	})
	for _, policy := range e.After.ImagePolicies {
		uses := slices.ContainsFunc(policy.Spec.TrustRoots,
			func(name v1alpha1.ObjectName) bool { return roots[string(name)] })
		if e.Policies[policy.Name] == "" && uses {
			e.Policies[policy.Name] = ChangeTrustRoot
		}
	}
	return e
}

// edited returns the objects with those of the same name replaced, and others added. It calls each
// with every object of the files and the one that it replaces, or nil.
func edited[T interface {
	comparable
	GetName() string
}](present, files []T, each func(old, updated T)) []T {
	byName := map[string]T{}
	for _, o := range present {
		byName[o.GetName()] = o
	}
	for _, o := range files {
		each(byName[o.GetName()], o)
		byName[o.GetName()] = o
	}
	return slices.SortedFunc(maps.Values(byName),
		func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
}

// Trial is what an edit would do to what runs.
type Trial struct {
	// Policies are the concerned policies, by name.
	Policies []PolicyTrial `json:"policies"`
	// Pods is how many Pods run in the namespaces that are not exempt.
	Pods int `json:"pods"`
	// WouldDeny counts the workloads that violate a concerned policy in mode Enforce. CouldNotCheck
	// counts those that could not be checked under one and violate none.
	WouldDeny     int `json:"wouldDeny"`
	CouldNotCheck int `json:"couldNotCheck"`
	// Faults are the errors of fetches.
	Faults []string `json:"faults,omitempty"`
}

// PolicyTrial is what would be under one policy.
type PolicyTrial struct {
	Name string `json:"name"`
	// Change is added, edited, unchanged or trustRoot.
	Change string `json:"change"`
	Mode   string `json:"mode"`
	// Fault is why the policy cannot be used, and so denies its scope.
	Fault         string          `json:"fault,omitempty"`
	Covered       int             `json:"covered"`
	Meeting       int             `json:"meeting"`
	Violating     int             `json:"violating"`
	CouldNotCheck int             `json:"couldNotCheck"`
	Workloads     []WorkloadTrial `json:"workloads"`
}

// WorkloadTrial is what would become of one workload under one policy.
type WorkloadTrial struct {
	Namespace  string `json:"namespace"`
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	// Verdict is one of the verdicts, and Before that under the policies in force.
	Verdict string `json:"verdict"`
	Before  string `json:"before"`
	// Images are those that do not meet the policy.
	Images []ImageTrial `json:"images,omitempty"`
}

// ImageTrial is an image that does not meet a policy, or could not be checked.
type ImageTrial struct {
	Image   string   `json:"image"`
	Tag     string   `json:"tag,omitempty"`
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason"`
	Missing []string `json:"missingRoles,omitempty"`
}

// Try evaluates what runs under the policies in force and under those after the edit.
func Try(ctx context.Context, r *Running, e Edit, before, after *Engine) (*Trial, error) {
	was, err := before.evaluate(ctx, r)
	if err != nil {
		return nil, err
	}
	is, err := after.evaluate(ctx, r)
	if err != nil {
		return nil, err
	}
	t := &Trial{Pods: r.Count, Faults: is.faults}
	known, now := byPolicy(was.findings), byPolicy(is.findings)
	denied, unchecked := map[compliance.Workload]bool{}, map[compliance.Workload]bool{}
	snapshot := after.Policies.Load()
	for _, p := range snapshot.Policies.All() {
		change, concerned := e.Policies[p.Name()]
		if !concerned {
			continue
		}
		one := PolicyTrial{Name: p.Name(), Change: change, Mode: string(p.Mode()), Workloads: []WorkloadTrial{}}
		if err := p.Ready(after.Evidence.Load()); err != nil {
			one.Fault = err.Error()
		}
		one.compare(known[p.Name()], now[p.Name()])
		t.Policies = append(t.Policies, one)
		if p.Mode() == v1alpha1.ModeWarn || p.Mode() == v1alpha1.ModeAudit {
			continue
		}
		for workload, f := range now[p.Name()] {
			switch verdict(f) {
			case VerdictViolates:
				denied[workload] = true
			case VerdictCouldNotCheck:
				unchecked[workload] = true
			}
		}
	}
	maps.DeleteFunc(unchecked, func(w compliance.Workload, _ bool) bool { return denied[w] })
	t.WouldDeny, t.CouldNotCheck = len(denied), len(unchecked)
	return t, nil
}

// byPolicy returns the findings by policy and workload.
func byPolicy(findings []compliance.Finding) map[string]map[compliance.Workload]*compliance.Finding {
	all := map[string]map[compliance.Workload]*compliance.Finding{}
	for i := range findings {
		f := &findings[i]
		if all[f.Policy] == nil {
			all[f.Policy] = map[compliance.Workload]*compliance.Finding{}
		}
		all[f.Policy][f.Workload] = f
	}
	return all
}

// compare adds the workloads that the policy covers or covered.
func (p *PolicyTrial) compare(was, is map[compliance.Workload]*compliance.Finding) {
	workloads := map[compliance.Workload]bool{}
	for w := range was {
		workloads[w] = true
	}
	for w := range is {
		workloads[w] = true
	}
	for _, w := range slices.SortedFunc(maps.Keys(workloads), compareWorkloads) {
		one := WorkloadTrial{
			Namespace: w.Namespace, APIVersion: w.APIVersion, Kind: w.Kind, Name: w.Name,
			Verdict: verdict(is[w]), Before: verdict(was[w]),
		}
		switch one.Verdict {
		case VerdictMeets:
			p.Meeting++
		case VerdictViolates:
			p.Violating++
		case VerdictCouldNotCheck:
			p.CouldNotCheck++
		}
		if f := is[w]; f != nil {
			p.Covered++
			for _, image := range f.Images {
				one.Images = append(one.Images, ImageTrial{
					Image: image.Image, Tag: image.Tag, Verdict: verdictOf(image.Verdict), Reason: image.Reason,
					Missing: image.Missing,
				})
			}
			slices.SortStableFunc(one.Images, func(a, b ImageTrial) int { return cmp.Compare(a.Image, b.Image) })
		}
		p.Workloads = append(p.Workloads, one)
	}
}

func verdict(f *compliance.Finding) string {
	if f == nil {
		return VerdictNotCovered
	}
	return verdictOf(f.Verdict)
}

// verdictOf returns the text of a verdict. Every unknown one violates.
func verdictOf(v policy.Verdict) string {
	switch v {
	case policy.Admitted:
		return VerdictMeets
	case policy.CouldNotCheck:
		return VerdictCouldNotCheck
	default:
		return VerdictViolates
	}
}
