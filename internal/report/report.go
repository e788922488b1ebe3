// Package report puts compliance findings into the form that dashboards of the policy ecosystem
// read: one report for each namespace, as PolicyReport (wgpolicyk8s.io/v1alpha2) and as its
// successor Report (openreports.io/v1alpha1), whose fields are the same.
//
// It promises that equal findings, in whatever order, give equal bytes; that what could not be
// checked is an error and never a pass; that the summary counts everything; and that no report
// grows past its bounds, however much runs in a namespace and whatever the owner references of Pods
// hold. The package is pure: it never touches a network, a clock or the cluster.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// Name is the name of every report, one in a namespace.
	Name = "countersign"
	// ManagedBy is the label that tells our reports from those of others.
	ManagedBy = "app.kubernetes.io/managed-by"
	// Manager is its value, and the owner of the fields that are applied.
	Manager = "countersign"
	// maxResults bounds the results of one report. Those that matter most are kept.
	maxResults = 1000
	// maxBytes bounds the results of one report as JSON. The API server stores objects of up to 1.5
	// MiB; with everything around the results, a report stays below 1 MiB.
	maxBytes = 900 << 10
)

// What every result has.
const (
	source   = "countersign"
	category = "Software Supply Chain Security"
	rule     = "required-roles"
)

// The results that the schemas of both formats know. Skip stands for what was left out.
const (
	resultFail  = "fail"
	resultError = "error"
	resultWarn  = "warn"
	resultPass  = "pass"
	resultSkip  = "skip"
)

// Format is one of the kinds that a report is written as.
type Format struct {
	schema.GroupVersionKind
	// Resource is the name of the kind in URLs.
	Resource string
}

// PolicyReport is the older format, which most dashboards read.
func PolicyReport() Format {
	return Format{
		schema.GroupVersionKind{Group: "wgpolicyk8s.io", Version: "v1alpha2", Kind: "PolicyReport"}, "policyreports",
	}
}

// OpenReport is its successor.
func OpenReport() Format {
	return Format{schema.GroupVersionKind{Group: "openreports.io", Version: "v1alpha1", Kind: "Report"}, "reports"}
}

// Report is the report of one namespace, in either format. The fields are those of the two schemas
// that are used here.
type Report struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        Metadata `json:"metadata"`
	Summary         Summary  `json:"summary"`
	Results         []Result `json:"results"`
}

// Metadata is what a report sets of the metadata of an object.
type Metadata struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
}

// Summary counts the results, also those that were left out of the report.
type Summary struct {
	Pass  int `json:"pass"`
	Fail  int `json:"fail"`
	Warn  int `json:"warn"`
	Error int `json:"error"`
	Skip  int `json:"skip"`
}

// Result is how one workload meets one policy. It has no time, so that what did not change is not
// written again.
type Result struct {
	Source     string            `json:"source"`
	Policy     string            `json:"policy"`
	Rule       string            `json:"rule,omitempty"`
	Category   string            `json:"category"`
	Result     string            `json:"result"`
	Scored     bool              `json:"scored"`
	Resources  []Resource        `json:"resources,omitempty"`
	Message    string            `json:"message"`
	Properties map[string]string `json:"properties,omitempty"`
}

// Resource refers to a workload.
type Resource struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// ByNamespace groups findings by the namespace of their workload. The findings stay as they are.
func ByNamespace(findings []compliance.Finding) map[string][]compliance.Finding {
	grouped := make(map[string][]compliance.Finding)
	for _, f := range findings {
		grouped[f.Workload.Namespace] = append(grouped[f.Workload.Namespace], f)
	}
	return grouped
}

// Build returns the report of a namespace. Results are sorted: what fails first, then what could
// not be checked, what is warned of and what passes, and among these by policy and workload. Of
// more than 1,000 results, or 900 KiB of them, the last are left out, and a result that says how
// many takes their place.
func Build(namespace string, findings []compliance.Finding) Report {
	r := Report{Metadata: Metadata{Namespace: namespace, Name: Name, Labels: map[string]string{ManagedBy: Manager}}}
	results := make([]Result, 0, len(findings))
	for i := range findings {
		one := result(&findings[i])
		r.Summary.add(one.Result)
		results = append(results, one)
	}
	slices.SortFunc(results, compare)
	r.Results = bounded(results)
	return r
}

// JSON returns the report in a format, as server-side apply wants it.
func (r Report) JSON(f Format) ([]byte, error) {
	r.APIVersion, r.Kind = f.GroupVersion().String(), f.Kind
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the report of namespace %s: %w", r.Metadata.Namespace, err)
	}
	return text, nil
}

// result is the result of a finding. A mode or verdict that is not known counts as the strictest.
func result(f *compliance.Finding) Result {
	noncommittal := f.Mode == v1alpha1.ModeWarn || f.Mode == v1alpha1.ModeAudit
	r := Result{
		Source: source, Policy: text.Cut(f.Policy, maxName), Rule: rule, Category: category, Scored: !noncommittal,
		Resources: []Resource{{
			APIVersion: text.Cut(f.Workload.APIVersion, maxName), Kind: text.Cut(f.Workload.Kind, maxName),
			Namespace: text.Cut(f.Workload.Namespace, maxName), Name: text.Cut(f.Workload.Name, maxName),
		}},
		Message: message(f), Properties: properties(f),
	}
	switch {
	case f.Verdict == policy.Admitted:
		r.Result = resultPass
	case f.Verdict == policy.CouldNotCheck:
		r.Result = resultError
	case noncommittal:
		r.Result = resultWarn
	default:
		r.Result = resultFail
	}
	return r
}

func (s *Summary) add(result string) {
	switch result {
	case resultPass:
		s.Pass++
	case resultWarn:
		s.Warn++
	case resultError:
		s.Error++
	default:
		s.Fail++
	}
}

func compare(a, b Result) int {
	order := []string{resultFail, resultError, resultWarn, resultPass}
	x, y := a.Resources[0], b.Resources[0]
	return cmp.Or(
		cmp.Compare(slices.Index(order, a.Result), slices.Index(order, b.Result)),
		cmp.Compare(a.Policy, b.Policy),
		cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name), cmp.Compare(x.APIVersion, y.APIVersion),
		cmp.Compare(a.Message, b.Message),
	)
}

// bounded returns as many of the results as a report may hold, and says how many there are besides.
func bounded(results []Result) []Result {
	size := 0
	for i := range results {
		text, err := json.Marshal(results[i])
		size += len(text)
		tooMany := i == maxResults-1 && len(results) > maxResults
		if err == nil && size <= maxBytes && !tooMany {
			continue
		}
		more := Result{
			Source: source, Policy: source, Category: category, Result: resultSkip,
			Message: fmt.Sprintf("%d further results are left out of this report; its summary counts them",
				len(results)-i),
		}
		return append(results[:i:i], more)
	}
	return results
}
