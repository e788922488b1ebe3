package preview

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/countersign-dev/countersign/internal/manifests"
	"github.com/countersign-dev/countersign/internal/policy"
)

// workloadsAtOnce is how many workloads are decided on at the same time.
const workloadsAtOnce = 8

// Workload is a workload to be checked, or images alone.
type Workload struct {
	// Source is where it was read: a file and a line; empty: images alone.
	Source string
	// Kind and Name identify it; empty: images alone.
	Kind, Name string
	// Namespace is the name of its namespace.
	Namespace string
	// Images are the references as they are written.
	Images []string
}

// Manifests is what manifests contain, as far as a decision depends on it.
type Manifests struct {
	Workloads []Workload
	// Namespaces are the labels of the Namespaces among them, by name.
	Namespaces map[string]labels.Set
}

// FromManifests returns the workloads of manifests that were read.
func FromManifests(set *manifests.Set) Manifests {
	m := Manifests{Namespaces: set.Namespaces}
	for i := range set.Workloads {
		w := &set.Workloads[i]
		one := Workload{
			Source: w.String(), Kind: w.Kind.Name, Name: w.Name, Namespace: w.Namespace,
			Images: make([]string, 0, len(w.Images)),
		}
		for _, image := range w.Images {
			one.Images = append(one.Images, image.Image)
		}
		m.Workloads = append(m.Workloads, one)
	}
	return m
}

// The verdicts of a Report.
const (
	VerdictAdmitted      = "Admitted"
	VerdictDenied        = "Denied"
	VerdictCouldNotCheck = "CouldNotCheck"
)

// Report is what the gate would decide about workloads. Its JSON is documented in docs/cli.md.
type Report struct {
	Workloads []WorkloadReport `json:"workloads"`
	Summary   Summary          `json:"summary"`
}

// Summary counts the images of a Report by verdict. An image counts once for each workload.
type Summary struct {
	Admitted      int `json:"admitted"`
	Denied        int `json:"denied"`
	CouldNotCheck int `json:"couldNotCheck"`
}

// WorkloadReport is what the gate would decide about one workload.
type WorkloadReport struct {
	Source    string `json:"source,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace"`
	Name      string `json:"name,omitempty"`
	Verdict   string `json:"verdict"`
	// Reason is why the images were not decided on, or that break-glass admits them.
	Reason string        `json:"reason,omitempty"`
	Images []ImageReport `json:"images"`
}

// ImageReport is what the gate would decide about one image.
type ImageReport struct {
	Image   string `json:"image"`
	Verdict string `json:"verdict"`
	// Digest is the verified digest, and Pinned the reference that a Pod would get; both are empty
	// if no policy required a signature.
	Digest string `json:"digest,omitempty"`
	Pinned string `json:"pinned,omitempty"`
	// Message is the gate's own text, where the image is not admitted.
	Message  string         `json:"message,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
	Audits   []string       `json:"audits,omitempty"`
	Policies []PolicyReport `json:"policies,omitempty"`
}

// PolicyReport is the outcome of one policy that covers an image.
type PolicyReport struct {
	Name    string   `json:"name"`
	Mode    string   `json:"mode"`
	Verdict string   `json:"verdict"`
	Reason  string   `json:"reason"`
	Missing []string `json:"missing,omitempty"`
}

// Verify decides on workloads. namespace returns the namespace of a name; it is called once for
// each. The order is that of the workloads.
func (e *Engine) Verify(ctx context.Context, workloads []Workload,
	namespace func(ctx context.Context, name string) Namespace) (Report, error) {
	namespaces := map[string]func() Namespace{}
	for i := range workloads {
		name := workloads[i].Namespace
		if namespaces[name] == nil {
			namespaces[name] = sync.OnceValue(func() Namespace { return namespace(ctx, name) })
		}
	}
	report := Report{Workloads: make([]WorkloadReport, len(workloads))}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workloadsAtOnce)
	for i := range workloads {
		g.Go(func() error {
			w := &workloads[i]
			judged, err := e.Judge(ctx, namespaces[w.Namespace](), w.Images)
			if err != nil {
				return fmt.Errorf("deciding on the images of %s %s: %w", w.Kind, w.Name, err)
			}
			report.Workloads[i] = reportOf(w, &judged)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	for i := range report.Workloads {
		report.Summary.add(&report.Workloads[i])
	}
	return report, nil
}

func (s *Summary) add(w *WorkloadReport) {
	for i := range w.Images {
		switch v := w.Images[i].Verdict; {
		case v == VerdictAdmitted, w.Verdict == VerdictAdmitted: // by break-glass
			s.Admitted++
		case v == VerdictDenied:
			s.Denied++
		default:
			s.CouldNotCheck++
		}
	}
}

func reportOf(w *Workload, j *Judgement) WorkloadReport {
	r := WorkloadReport{
		Source: w.Source, Kind: w.Kind, Namespace: w.Namespace, Name: w.Name, Verdict: verdictName(j.Verdict),
		Reason: j.Reason, Images: make([]ImageReport, 0, len(j.Images)),
	}
	for i := range j.Images {
		r.Images = append(r.Images, imageReport(&j.Images[i]))
	}
	return r
}

func imageReport(j *ImageJudgement) ImageReport {
	d := &j.Decision
	r := ImageReport{
		Image: j.Image, Verdict: verdictName(d.Verdict), Digest: d.Digest, Message: d.Message,
		Warnings: slices.Clone(j.Warnings), Audits: d.Audits,
	}
	if d.Verdict == policy.Admitted && d.Digest != "" {
		r.Pinned = d.Image.Pinned(d.Digest)
	}
	for _, o := range d.Outcomes {
		r.Policies = append(r.Policies, PolicyReport{
			Name: o.Policy, Mode: string(o.Mode), Verdict: verdictName(o.Verdict), Reason: o.Reason, Missing: o.Missing,
		})
	}
	return r
}

// verdictName returns the name of a verdict in a Report.
func verdictName(v policy.Verdict) string {
	switch v {
	case policy.Admitted:
		return VerdictAdmitted
	case policy.CouldNotCheck:
		return VerdictCouldNotCheck
	case policy.Denied:
	}
	return VerdictDenied
}
