// Package report converts compliance findings to the reports that policy dashboards read: one for
// each namespace, as PolicyReport (wgpolicyk8s.io/v1alpha2) or as its successor Report
// (openreports.io/v1alpha1). The fields of both are the same.
//
// Equal findings give equal bytes, in any order. A workload that could not be checked is an error
// and never a pass. The summary counts every finding. A report stays within its bounds, however
// many workloads run in a namespace and whatever the owner references of Pods contain. The package
// is pure: it uses no network, clock or cluster.
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
	// Name is the name of every report. Each namespace has one.
	Name = "countersign"
	// ManagedBy is the label of Countersign's reports.
	ManagedBy = "app.kubernetes.io/managed-by"
	// Manager is the value of that label, and the field manager of server-side apply.
	Manager = "countersign"
	// maxResults is the maximum number of results in one report. The most important are kept.
	maxResults = 1000
	// maxBytes is the maximum size of the results of one report as JSON. The whole report then
	// stays below 1 MiB. The API server stores objects of up to 1.5 MiB.
	maxBytes = 900 << 10
)

// Fields that are the same in every result.
const (
	source   = "countersign"
	category = "Software Supply Chain Security"
	rule     = "required-roles"
)

// The values of the field result in the schemas of both formats. Countersign uses skip for the
// result that says how many were left out.
const (
	resultFail  = "fail"
	resultError = "error"
	resultWarn  = "warn"
	resultPass  = "pass"
	resultSkip  = "skip"
)

// Format is one of the kinds of report.
type Format struct {
	schema.GroupVersionKind
	// Resource is the resource name of the kind, as in URLs.
	Resource string
}

// PolicyReport returns the older format, which most dashboards read.
func PolicyReport() Format {
	return Format{
		schema.GroupVersionKind{Group: "wgpolicyk8s.io", Version: "v1alpha2", Kind: "PolicyReport"}, "policyreports",
	}
}

// OpenReport returns the successor of PolicyReport.
func OpenReport() Format {
	return Format{schema.GroupVersionKind{Group: "openreports.io", Version: "v1alpha1", Kind: "Report"}, "reports"}
}

// Report is the report of one namespace, in either format. It has the fields of the two schemas
// that Countersign uses.
type Report struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        Metadata `json:"metadata"`
	Summary         Summary  `json:"summary"`
	Results         []Result `json:"results"`
}

// Metadata is the part of an object's metadata that a report sets.
type Metadata struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
}

// Summary counts the results, including those left out of the report.
type Summary struct {
	Pass  int `json:"pass"`
	Fail  int `json:"fail"`
	Warn  int `json:"warn"`
	Error int `json:"error"`
	Skip  int `json:"skip"`
}

// Result is the outcome for one workload and one policy. It has no time, so that the writer does
// not rewrite an unchanged report.
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

// ByNamespace groups findings by the namespace of their workload.
func ByNamespace(findings []compliance.Finding) map[string][]compliance.Finding {
	grouped := make(map[string][]compliance.Finding)
	for _, f := range findings {
		grouped[f.Workload.Namespace] = append(grouped[f.Workload.Namespace], f)
	}
	return grouped
}

// Build returns the report of a namespace. It sorts the results by outcome (fail, error, warn,
// pass), then by policy and workload. If there are more than 1,000 results or more than 900 KiB, it
// leaves out the last ones and appends a result that says how many.
func Build(namespace string, findings []compliance.Finding) Report {
	r := Report{Metadata: Metadata{Namespace: namespace, Name: Name, Labels: map[string]string{ManagedBy: Manager}}}
	results := make([]Result, 0, len(findings))
	for i := range findings {
		one := result(&findings[i])
		r.Summary.add(one.Result)
		results = append(results, one)
	}
	slices.SortFunc(results, compare)
	r.Results = truncate(results)
	return r
}

// JSON encodes the report in a format, for server-side apply.
func (r Report) JSON(f Format) ([]byte, error) {
	r.APIVersion, r.Kind = f.GroupVersion().String(), f.Kind
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding the report of namespace %s: %w", r.Metadata.Namespace, err)
	}
	return text, nil
}

// result returns the result of a finding. An unknown mode counts as Enforce, and an unknown verdict
// as Denied.
func result(f *compliance.Finding) Result {
	admits := f.Mode == v1alpha1.ModeWarn || f.Mode == v1alpha1.ModeAudit
	r := Result{
		Source: source, Policy: text.Cut(f.Policy, maxName), Rule: rule, Category: category, Scored: !admits,
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
	case admits:
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

// truncate returns as many results as fit into a report. If some do not fit, the last result says
// how many.
func truncate(results []Result) []Result {
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
