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
	// Findings are sorted by policy, namespace, kind, name and API version: one for each policy and each workload that it covers.
	Findings []Finding
	// Policies holds every policy, by name.
	Policies map[string]Summary
	// Needs are the repositories that what runs is checked against, by trust root: their evidence is to be kept.
	Needs map[string][]imageref.Ref
	// NotLoaded counts the images that wait for evidence to be fetched for the first time.
	NotLoaded int
}

// Summary is how what runs meets one policy.
type Summary struct {
	// Covered counts the workloads that the policy covers; Violating those of them that violate it; and Unchecked those
	// that could not be checked, and are not known to violate it.
	Covered, Violating, Unchecked int
	// Findings are the policy's part of Result.Findings.
	Findings []Finding
	// BreakGlass are the namespaces in which the policy would hold and the gate stands open, by name.
	BreakGlass []BreakGlass
}

// BreakGlass is a namespace with the label that opens the gate in it.
type BreakGlass struct {
	Namespace, Reason string
}

// Evaluate judges what runs. Its time is that of one decision for each distinct image of a namespace, and little for each
// further Pod.
func Evaluate(in Input) *Result {
	e := evaluation{Input: in, judged: map[question]*judgement{}, needs: map[need]imageref.Ref{}}
	workloads := map[Workload]*running{}
	for i := range in.Pods {
		p := &in.Pods[i]
		namespace, ok := in.Namespaces[p.Workload.Namespace]
		if !ok {
			continue
		}
		w := workloads[p.Workload]
		if w == nil {
			w = &running{controller: p.Controller}
			workloads[p.Workload] = w
		}
		if compareReferences(p.Controller, w.controller) < 0 {
			w.controller = p.Controller
		}
		for _, image := range p.Images {
			if j := e.judge(question{p.Workload.Namespace, image}, namespace); !slices.Contains(w.images, j) {
				w.images = append(w.images, j)
			}
		}
	}
	r := &Result{Needs: map[string][]imageref.Ref{}, NotLoaded: e.notLoaded}
	for n, image := range e.needs {
		r.Needs[n.root] = append(r.Needs[n.root], image)
	}
	for workload, w := range workloads {
		r.Findings = w.find(workload, r.Findings)
	}
	slices.SortFunc(r.Findings, compareFindings)
	r.Policies = summarise(in, r.Findings)
	return r
}

type evaluation struct {
	Input
	judged    map[question]*judgement
	needs     map[need]imageref.Ref
	notLoaded int
}

// question tells what is judged apart.
type question struct {
	namespace string
	image     Image
}

type need struct{ root, repository string }

// judgement is what became of one image in one namespace.
type judgement struct {
	image    string
	outcomes []policy.Outcome
}

// running is one workload with the distinct images of its Pods.
type running struct {
	controller Reference
	images     []*judgement
}

// judge decides on one image, once. What runs is judged by its digest and without the tag, which may have moved on since.
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
	if q.image.Digest != "" {
		ref.Tag, ref.Digest = "", q.image.Digest
		j.image = ref.String()
	}
	d := e.Policies.Decide(policy.Request{Image: j.image, NamespaceLabels: namespace, Now: e.Now}, e.Roots)
	j.outcomes = d.Outcomes
	if len(d.NotLoaded) > 0 {
		e.notLoaded++
	}
	if len(j.outcomes) > 0 {
		for _, root := range e.Policies.Consults(ref, namespace) {
			e.needs[need{root, ref.Repository()}] = ref
		}
	}
	return j
}

// unreadable is what a reference that cannot be parsed comes to: nobody can tell which of the policies that hold in the
// namespace cover it, so none of them may count it as met.
func (e *evaluation) unreadable(namespace labels.Set) []policy.Outcome {
	var all []policy.Outcome
	for _, p := range e.Policies.HoldingIn(namespace) {
		all = append(all, policy.Outcome{Policy: p.Name(), Mode: p.Mode(), Verdict: policy.CouldNotCheck, Reason: v1alpha1.ReasonInvalidImage})
	}
	return all
}

// find appends a finding for each policy that covers an image of the workload.
func (w *running) find(workload Workload, into []Finding) []Finding {
	first := len(into)
	for _, j := range w.images {
		for _, o := range j.outcomes {
			i := slices.IndexFunc(into[first:], func(f Finding) bool { return f.Policy == o.Policy })
			if i < 0 {
				i = len(into) - first
				into = append(into, Finding{Policy: o.Policy, Mode: o.Mode, Workload: workload, Controller: w.controller, Verdict: policy.Admitted})
			}
			f := &into[first+i]
			f.Verdict = worse(f.Verdict, o.Verdict)
			if o.Verdict != policy.Admitted {
				f.Images = append(f.Images, ImageFinding{Image: j.image, Verdict: o.Verdict, Reason: o.Reason, Missing: o.Missing})
			}
		}
	}
	for i := range into[first:] {
		images := into[first+i].Images
		slices.SortFunc(images, func(a, b ImageFinding) int { return strings.Compare(a.Image, b.Image) })
		// Several spellings of one image were judged alike.
		into[first+i].Images = slices.CompactFunc(images, func(a, b ImageFinding) bool { return a.Image == b.Image })
	}
	return into
}

// worse puts a violation before what could not be checked, and that before what is met. Anything else is a violation.
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
	for _, name := range in.Policies.Names() {
		n := 0
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

func compareFindings(a, b Finding) int {
	return cmp.Or(strings.Compare(a.Policy, b.Policy), compareWorkloads(a.Workload, b.Workload))
}

func compareWorkloads(a, b Workload) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name),
		strings.Compare(a.APIVersion, b.APIVersion))
}

func compareReferences(a, b Reference) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), strings.Compare(string(a.UID), string(b.UID)))
}
