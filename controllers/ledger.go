package controllers

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

// mostListed is how many violations, and how many namespaces, the status of a policy lists.
const mostListed = 20

// violation names one image of one workload in breach of a policy, as the status does.
type violation struct{ policy, namespace, kind, name, image string }

func compareViolations(a, b violation) int {
	return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.kind, b.kind), strings.Compare(a.name, b.name), strings.Compare(a.image, b.image))
}

// ledger knows since when each violation has been there, so that each is reported once and keeps its time.
type ledger struct {
	since map[violation]metav1.Time
	// listed is the last violation that the status of a policy had room for, until the first entry: what comes after it may have
	// been reported by an earlier leader.
	listed map[string]violation
}

// readLedger makes a ledger of what earlier leaders left in the status of the policies.
func readLedger(ctx context.Context, c client.Reader) (*ledger, error) {
	policies := &v1alpha1.ImagePolicyList{}
	if err := c.List(ctx, policies); err != nil {
		return nil, fmt.Errorf("listing what was reported before: %w", err)
	}
	return ledgerOf(policies.Items), nil
}

func ledgerOf(policies []v1alpha1.ImagePolicy) *ledger {
	l := &ledger{since: map[violation]metav1.Time{}, listed: map[string]violation{}}
	for i := range policies {
		p := &policies[i]
		for _, v := range p.Status.Violations {
			key := violation{p.Name, v.Namespace, v.Kind, v.Name, v.Image}
			l.since[key] = v.Since
			if len(p.Status.Violations) >= mostListed {
				l.listed[p.Name] = key
			}
		}
	}
	return l
}

// news is what to tell the owner of a workload: which of its images are in breach of a policy since this evaluation; none: that
// none is any more.
type news struct {
	finding *compliance.Finding
	images  []compliance.ImageFinding
}

// enter notes a result and returns what is new in it, in its order. A violation that cannot be checked at the moment is neither new
// nor over.
func (l *ledger) enter(result *compliance.Result, now time.Time) []news {
	next := make(map[violation]metav1.Time, len(l.since))
	broken := map[violation]bool{} // without an image: workloads that were in breach
	for v := range l.since {
		v.image = ""
		broken[v] = true
	}
	var all []news
	for i := range result.Findings {
		f := &result.Findings[i]
		var fresh []compliance.ImageFinding
		for _, image := range f.Images {
			key := keyOf(f, image.Image)
			since, known := l.since[key]
			switch {
			case known:
				next[key] = since
			case image.Verdict == policy.CouldNotCheck:
			default:
				next[key] = metav1.NewTime(now.Truncate(time.Second))
				if last, full := l.listed[f.Policy]; !full || compareViolations(key, last) < 0 {
					fresh = append(fresh, image)
				}
			}
		}
		if len(fresh) > 0 || f.Verdict == policy.Admitted && broken[keyOf(f, "")] {
			all = append(all, news{f, fresh})
		}
	}
	l.since, l.listed = next, nil
	return all
}

func keyOf(f *compliance.Finding, image string) violation {
	return violation{f.Policy, f.Workload.Namespace, bounded(f.Workload.Kind, 63), bounded(f.Workload.Name, 253), bounded(image, 1024)}
}

// bounded cuts what a Pod says of itself to what the status has room for.
func bounded(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// first returns the first violations of a policy, whose findings come in the order of the status.
func (l *ledger) first(findings []compliance.Finding) []v1alpha1.Violation {
	var all []v1alpha1.Violation
	for i := range findings {
		for _, image := range findings[i].Images {
			if image.Verdict == policy.CouldNotCheck {
				continue
			}
			if len(all) == mostListed {
				return all
			}
			key := keyOf(&findings[i], image.Image)
			all = append(all, v1alpha1.Violation{
				Namespace: key.namespace, Kind: key.kind, Name: key.name, Image: key.image,
				Reason: image.Reason, MissingRoles: image.Missing, Since: l.since[key],
			})
		}
	}
	return all
}
