package compliance

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Input is the input of Evaluate, which reads it only.
type Input struct {
	// Pods are the running Pods.
	Pods []Pod
	// Namespaces are the labels of every namespace that is not exempt. Evaluate ignores Pods of
	// other namespaces.
	Namespaces map[string]labels.Set
	// Policies and Roots are from one snapshot.
	Policies *policy.Set
	Roots    policy.Roots
	// Now is the time to compare expiries with.
	Now time.Time
}

// Result is the outcome of an evaluation. It is immutable and shared.
type Result struct {
	// Findings has one item for each pair of a policy and a workload that it covers. They are
	// sorted by policy, namespace, kind, name and API version.
	Findings []Finding
	// Policies has every policy, by name.
	Policies map[string]Summary
	// Needs are the subjects whose evidence the running Pods need. The store keeps it.
	Needs []trust.Key
	// NotLoaded counts the digests and tags whose evidence has not been fetched for the first time
	// yet.
	NotLoaded int
}

// Summary is the outcome of an evaluation for one policy.
type Summary struct {
	// Covered counts the workloads that the policy covers. Violating counts those that violate it.
	// Unchecked counts those that could not be checked and do not violate it as far as is known.
	Covered, Violating, Unchecked int
	// WouldDeny counts the workloads that mode Enforce would deny and the policy's mode admits.
	WouldDeny int
	// Nowhere is true if the policy holds in none of the namespaces that are not exempt.
	Nowhere bool
	// Findings are the items of Result.Findings of this policy.
	Findings []Finding
	// BreakGlass are the namespaces where the policy would hold without their break-glass label,
	// sorted by name.
	BreakGlass []BreakGlass
}

// BreakGlass is a namespace with the break-glass label. Reason is the value of the label.
type BreakGlass struct {
	Namespace, Reason string
}

// Evaluate checks the running Pods against the policies. It makes one decision for each distinct
// image of a namespace. A further Pod with the same images costs little.
func Evaluate(in Input) *Result {
	e := evaluation{Input: in, judged: map[target]*judgement{}, needs: map[trust.Key]bool{}}
	workloads := e.workloads()
	r := &Result{Needs: slices.Collect(maps.Keys(e.needs)), NotLoaded: e.notLoaded}
	for workload, images := range workloads {
		r.Findings = append(r.Findings, find(workload, images)...)
	}
	slices.SortFunc(r.Findings, compareFindings)
	r.Policies = summarise(in, r.Findings)
	return r
}

type evaluation struct {
	Input
	judged    map[target]*judgement
	needs     map[trust.Key]bool
	notLoaded int
}

// target is an image in a namespace. Each distinct target is judged once.
type target struct {
	namespace string
	image     Image
}

// judgement is the outcome for one target: of each policy that covers it. Image and tag are those
// of ImageFinding.
type judgement struct {
	image, tag string
	outcomes   []policy.Outcome
}

// running are the distinct images of a workload that policies cover. Each has the controller of one
// of the Pods with that image, the first in order.
type running map[*judgement]*Reference

// workloads judges the images of all Pods and groups them by workload.
func (e *evaluation) workloads() map[Workload]running {
	workloads := map[Workload]running{}
	for i := range e.Pods {
		p := &e.Pods[i]
		namespace, ok := e.Namespaces[p.Workload.Namespace]
		if !ok {
			continue
		}
		for _, image := range p.Images {
			j := e.judge(target{p.Workload.Namespace, image}, namespace)
			if len(j.outcomes) == 0 {
				continue
			}
			images := workloads[p.Workload]
			if images == nil {
				images = running{}
				workloads[p.Workload] = images
			}
			if c := images[j]; c == nil || compareReferences(p.Controller, *c) < 0 {
				images[j] = &p.Controller
			}
		}
	}
	return workloads
}

// judge decides on one target, once. It judges a short name under ShortNamesDeny as written, and
// any other image by its digest without the tag, which may have moved since the Pod started.
//
// The Pod may name one digest and the kubelet report another: some kubelets do so for an index.
// Then either digest can meet a policy, because the reported content is that of the named digest or
// a part of it. If one digest does not meet the policy and the other could not be checked, the
// verdict is CouldNotCheck.
func (e *evaluation) judge(t target, namespace labels.Set) *judgement {
	if j := e.judged[t]; j != nil {
		return j
	}
	j := &judgement{image: t.image.Spec}
	e.judged[t] = j
	ref, err := imageref.Parse(t.image.Spec)
	if err != nil {
		j.outcomes = e.unreadable(namespace)
		return j
	}
	if e.Policies.Distrusts(ref) {
		// The kubelet's report does not say how the runtime resolved the short name: a runtime
		// reports any name that the content has on its node.
		j.outcomes = e.Policies.Decide(e.request(t.image.Spec, t.namespace, namespace), e.Roots).Outcomes
		return j
	}
	if ref.Digest == "" && t.image.Digest != "" {
		j.tag, ref.Digest = ref.Tag, t.image.Digest
	}
	if ref.Digest != "" {
		ref.Tag = ""
	}
	j.image = truncate(ref.String(), imageref.MaxLength)
	if j.image != ref.String() { // the full reference is too long to be parsed
		j.outcomes = e.unreadable(namespace)
		return j
	}
	j.outcomes = e.check(ref, t.namespace, namespace)
	if t.image.Digest != "" && t.image.Digest != ref.Digest {
		part := ref
		part.Digest = t.image.Digest
		for i, o := range e.check(part, t.namespace, namespace) { // the same policies: they cover repositories
			if worse(j.outcomes[i].Verdict, o.Verdict) != o.Verdict {
				j.outcomes[i] = o
			}
		}
	}
	return j
}

// check decides on an image and records the subjects that the decision needs, fetched or not, so
// that the store keeps their evidence.
func (e *evaluation) check(image imageref.Ref, name string, namespace labels.Set) []policy.Outcome {
	req := e.request(image.String(), name, namespace)
	d := e.Policies.Decide(req, e.Roots)
	if len(d.NotLoaded) > 0 {
		e.notLoaded++
	}
	needs := slices.Concat(d.NotLoaded, d.Consulted)
	if len(d.Outcomes) > 0 {
		needs = append(needs, e.Policies.Subjects(image, req, e.Roots)...)
	}
	for _, k := range needs {
		e.needs[k] = true
	}
	return d.Outcomes
}

// request returns the request for a decision on an image in a namespace of a name and labels.
func (e *evaluation) request(image, name string, namespace labels.Set) policy.Request {
	return policy.Request{Image: image, Namespace: name, NamespaceLabels: namespace, Now: e.Now, Report: true}
}

// unreadable returns the outcomes for a reference that cannot be parsed. Any policy that holds in
// the namespace might cover it, so for each of them the verdict is CouldNotCheck.
func (e *evaluation) unreadable(namespace labels.Set) []policy.Outcome {
	var all []policy.Outcome
	for _, p := range e.Policies.HoldingIn(namespace) {
		all = append(all, policy.Outcome{
			Policy: p.Name(), Mode: p.Mode(), Verdict: policy.CouldNotCheck, Reason: v1alpha1.ReasonInvalidImage,
		})
	}
	return all
}

// find returns a finding for each policy that covers an image of the workload.
func find(workload Workload, images running) []Finding {
	var found []Finding
	at := map[string]int{} // index in found, by policy
	for j, controller := range images {
		for _, o := range j.outcomes {
			i, known := at[o.Policy]
			if !known {
				i = len(found)
				at[o.Policy] = i
				found = append(found, Finding{
					Policy: o.Policy, Mode: o.Mode, Workload: workload, Controller: *controller, Verdict: o.Verdict,
				})
			}
			found[i].add(j, o, *controller)
		}
	}
	for i := range found {
		// Several spellings of one image give the same item. If the kubelets report different
		// digests for one image, only the worst remains.
		slices.SortFunc(found[i].Images, func(a, b ImageFinding) int {
			return cmp.Or(strings.Compare(a.Image, b.Image), cmp.Compare(a.Verdict, b.Verdict),
				strings.Compare(a.Tag, b.Tag))
		})
		found[i].Images = slices.CompactFunc(found[i].Images,
			func(a, b ImageFinding) bool { return a.Image == b.Image })
	}
	return found
}

// add adds one image to the finding.
func (f *Finding) add(j *judgement, o policy.Outcome, controller Reference) {
	switch worst := worse(f.Verdict, o.Verdict); {
	case worst != f.Verdict:
		f.Verdict, f.Controller = worst, controller
	case o.Verdict == worst && compareReferences(controller, f.Controller) < 0:
		f.Controller = controller
	}
	if o.Verdict != policy.Admitted {
		f.Images = append(f.Images, ImageFinding{
			Image: j.image, Tag: j.tag, Verdict: o.Verdict, Reason: o.Reason, Missing: o.Missing,
		})
	}
}

// worse returns the worse of two verdicts: Denied, then CouldNotCheck, then Admitted. Any other
// verdict counts as Denied.
func worse(a, b policy.Verdict) policy.Verdict {
	switch {
	case a == policy.Admitted:
		return b
	case b == policy.Admitted:
		return a
	case a == policy.CouldNotCheck:
		return b
	}
	return a
}

// summarise returns the summary of each policy. The findings are sorted by policy.
func summarise(in Input, findings []Finding) map[string]Summary {
	summaries := map[string]Summary{}
	for _, p := range in.Policies.All() {
		name, n := p.Name(), 0
		for n < len(findings) && findings[n].Policy == name {
			n++
		}
		s := Summary{Covered: n, Findings: findings[:n:n]}
		for i := range s.Findings {
			switch s.Findings[i].Verdict {
			case policy.Admitted:
			case policy.CouldNotCheck:
				s.Unchecked++
			default:
				s.Violating++
			}
		}
		if p.Mode() == v1alpha1.ModeWarn || p.Mode() == v1alpha1.ModeAudit {
			s.WouldDeny = s.Violating + s.Unchecked
		}
		s.Nowhere = n == 0 && !holdsAnywhere(p, in.Namespaces)
		summaries[name], findings = s, findings[n:]
	}
	for _, namespace := range slices.Sorted(maps.Keys(in.Namespaces)) {
		reason := in.Namespaces[namespace][v1alpha1.LabelBreakGlass]
		if reason == "" {
			continue
		}
		for _, p := range in.Policies.HoldingIn(in.Namespaces[namespace]) {
			s := summaries[p.Name()]
			s.BreakGlass = append(s.BreakGlass, BreakGlass{Namespace: namespace, Reason: reason})
			summaries[p.Name()] = s
		}
	}
	return summaries
}

// holdsAnywhere reports whether a policy holds in any of the namespaces.
func holdsAnywhere(p *policy.Policy, namespaces map[string]labels.Set) bool {
	for _, set := range namespaces {
		if p.HoldsIn(set) {
			return true
		}
	}
	return false
}

func compareFindings(a, b Finding) int {
	return cmp.Or(strings.Compare(a.Policy, b.Policy), compareWorkloads(a.Workload, b.Workload))
}

func compareWorkloads(a, b Workload) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind, b.Kind),
		strings.Compare(a.Name, b.Name),
		strings.Compare(a.APIVersion, b.APIVersion))
}

func compareReferences(a, b Reference) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name),
		strings.Compare(string(a.UID), string(b.UID)),
		strings.Compare(a.APIVersion, b.APIVersion))
}
