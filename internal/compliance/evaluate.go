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

// Input is what an evaluation looks at. Nothing of it is changed.
type Input struct {
	// Pods are those that run.
	Pods []Pod
	// Namespaces are the labels of every namespace that is not exempt. Pods of others are left out.
	Namespaces map[string]labels.Set
	// Policies and Roots are of one snapshot.
	Policies *policy.Set
	Roots    policy.Roots
	// Now is the time at which expiry is judged.
	Now time.Time
}

// Result is how what runs meets the policies. It is immutable and shared.
type Result struct {
	// Findings are sorted by policy, namespace, kind, name and API version: one for each policy and
	// each workload that it covers.
	Findings []Finding
	// Policies holds every policy, by name.
	Policies map[string]Summary
	// Needs are the subjects that what runs is checked against: their evidence is to be kept.
	Needs []trust.Key
	// NotLoaded counts the digests and tags that wait for evidence to be fetched for the first
	// time.
	NotLoaded int
}

// Summary is how what runs meets one policy.
type Summary struct {
	// Covered counts the workloads that the policy covers; Violating those of them that violate it;
	// and Unchecked those that could not be checked, and are not known to violate it.
	Covered, Violating, Unchecked int
	// WouldDeny counts those that mode Enforce would deny and the mode of the policy lets in.
	WouldDeny int
	// Nowhere says that the policy holds in no namespace that is not exempt.
	Nowhere bool
	// Findings are the policy's part of Result.Findings.
	Findings []Finding
	// BreakGlass are the namespaces in which the policy would hold and the gate stands open, by
	// name.
	BreakGlass []BreakGlass
}

// BreakGlass is a namespace with the label that opens the gate in it.
type BreakGlass struct {
	Namespace, Reason string
}

// Evaluate judges what runs. Its time is that of one decision for each distinct image of a
// namespace, and little for each further Pod.
func Evaluate(in Input) *Result {
	e := evaluation{Input: in, judged: map[question]*judgement{}, needs: map[trust.Key]bool{}}
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
	judged    map[question]*judgement
	needs     map[trust.Key]bool
	notLoaded int
}

// question tells what is judged apart.
type question struct {
	namespace string
	image     Image
}

// judgement is what became of one image in one namespace.
type judgement struct {
	image, tag string
	outcomes   []policy.Outcome
}

// running are the distinct images of a workload that policies cover, each with the first controller
// of the Pods that have it.
type running map[*judgement]*Reference

// workloads judges the images of all Pods, by what the Pods belong to.
func (e *evaluation) workloads() map[Workload]running {
	workloads := map[Workload]running{}
	for i := range e.Pods {
		p := &e.Pods[i]
		namespace, ok := e.Namespaces[p.Workload.Namespace]
		if !ok {
			continue
		}
		for _, image := range p.Images {
			j := e.judge(question{p.Workload.Namespace, image}, namespace)
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

// judge decides on one image, once. A short name that is not trusted is judged as it is written.
// Everything else that runs is judged by its digest and without the tag, which may have moved on
// since. Where the Pod names one digest and the kubelet reports another, as some do of an index, a
// policy is met if either meets it: what is asked for by digest is that content, or a part of it.
// Where one does not meet it, and the other could not be checked, it could not be checked.
func (e *evaluation) judge(q question, namespace labels.Set) *judgement {
	if j := e.judged[q]; j != nil {
		return j
	}
	j := &judgement{image: q.image.Spec}
	e.judged[q] = j
	ref, err := imageref.Parse(q.image.Spec)
	if err != nil {
		j.outcomes = e.unreadable(namespace)
		return j
	}
	if e.Policies.Distrusts(ref) {
		// The kubelet's report does not tell how the name was read: a runtime reports any name of
		// the content on its node.
		j.outcomes = e.decide(q.image.Spec, namespace).Outcomes
		return j
	}
	if ref.Digest == "" && q.image.Digest != "" {
		j.tag, ref.Digest = ref.Tag, q.image.Digest
	}
	if ref.Digest != "" {
		ref.Tag = ""
	}
	j.image = bounded(ref.String(), imageref.MaxLength)
	if j.image != ref.String() { // in full it is longer than what can be parsed
		j.outcomes = e.unreadable(namespace)
		return j
	}
	j.outcomes = e.check(ref, namespace)
	if q.image.Digest != "" && q.image.Digest != ref.Digest {
		part := ref
		part.Digest = q.image.Digest
		for i, o := range e.check(part, namespace) { // of the same policies: they cover repositories
			if worse(j.outcomes[i].Verdict, o.Verdict) != o.Verdict {
				j.outcomes[i] = o
			}
		}
	}
	return j
}

// check decides on an image, and notes the subjects that the decision needs: those that are yet to
// be fetched, and those that a trust root is checked for, so that their evidence is kept.
func (e *evaluation) check(image imageref.Ref, namespace labels.Set) []policy.Outcome {
	d := e.decide(image.String(), namespace)
	if len(d.NotLoaded) > 0 {
		e.notLoaded++
	}
	for _, k := range slices.Concat(d.NotLoaded, d.Consulted) {
		e.needs[k] = true
	}
	if len(d.Outcomes) > 0 {
		for _, root := range e.Policies.Consults(image, namespace) {
			if e.Roots.Usable(root) == nil {
				e.needs[trust.Key{Root: root, Subject: e.Roots.Subject(root, image)}] = true
			}
		}
	}
	return d.Outcomes
}

func (e *evaluation) decide(image string, namespace labels.Set) policy.Decision {
	return e.Policies.Decide(policy.Request{Image: image, NamespaceLabels: namespace, Now: e.Now}, e.Roots)
}

// unreadable is what a reference that cannot be parsed comes to: nobody can tell which of the
// policies that hold in the namespace cover it, so none of them may count it as met.
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
	at := map[string]int{} // by policy
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
		// Several spellings of one image were judged alike; where the kubelet reports different
		// digests for one, the worst counts.
		slices.SortFunc(found[i].Images, func(a, b ImageFinding) int {
			return cmp.Or(strings.Compare(a.Image, b.Image), cmp.Compare(a.Verdict, b.Verdict),
				strings.Compare(a.Tag, b.Tag))
		})
		found[i].Images = slices.CompactFunc(found[i].Images,
			func(a, b ImageFinding) bool { return a.Image == b.Image })
	}
	return found
}

// add takes one image into the finding.
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

// worse puts a violation before what could not be checked, and that before what is met. Anything
// else is a violation.
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

// summarise counts findings, which are sorted by policy.
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
