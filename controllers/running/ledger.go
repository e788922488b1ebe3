package running

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
)

const (
	// maxListed is how many violations, and how many namespaces, the status of a policy lists.
	maxListed = 20
	// maxAnnounced bounds the workloads that one evaluation records events for, and
	// maxPerNamespace those of one namespace. The next evaluation records the others.
	maxAnnounced, maxPerNamespace = 50, 10
)

// violation is one image of one workload that violates a policy. One read from a status has no API
// version.
type violation struct {
	policy   string
	workload compliance.Workload
	image    string
}

// listed returns the violation as a status lists it.
func (v violation) listed() violation {
	v.workload.APIVersion = ""
	return v
}

// compareViolations compares violations of one policy. Its order is that of the status.
func compareViolations(a, b violation) int {
	x, y := a.workload, b.workload
	return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Kind, y.Kind),
		strings.Compare(x.Name, y.Name), strings.Compare(a.image, b.image))
}

// entry is the state of a known violation.
type entry struct {
	since     metav1.Time
	announced bool // an event is recorded
}

// ledger stores when each violation was first seen and whether an event was recorded for it, so
// that each has one event and keeps its time.
type ledger struct {
	known map[violation]entry
	// violating are the workloads with an event about a violation and none yet about its end. Each
	// is a violation without an image.
	violating map[violation]bool
	// last is the last violation in a full status of each policy, until the first enter: an earlier
	// leader may have recorded events for those after it.
	last map[string]violation
}

// readLedger builds a ledger from the status of the policies, which earlier leaders wrote.
func readLedger(ctx context.Context, c client.Reader) (*ledger, error) {
	policies := &v1alpha1.ImagePolicyList{}
	if err := c.List(ctx, policies); err != nil {
		return nil, fmt.Errorf("listing ImagePolicies for their recorded violations: %w", err)
	}
	return ledgerOf(policies.Items), nil
}

func ledgerOf(policies []v1alpha1.ImagePolicy) *ledger {
	l := &ledger{known: map[violation]entry{}, violating: map[violation]bool{}, last: map[string]violation{}}
	for i := range policies {
		p := &policies[i]
		for _, v := range p.Status.Violations {
			key := violation{p.Name, compliance.Workload{Namespace: v.Namespace, Kind: v.Kind, Name: v.Name}, v.Image}
			l.known[key] = entry{since: v.Since, announced: true}
			if len(p.Status.Violations) >= maxListed {
				l.last[p.Name] = key
			}
			key.image = ""
			l.violating[key] = true
		}
	}
	return l
}

// announcement is the content of one event about a workload: the images that violate a policy and
// have no event yet. Without images, the workload no longer violates it.
type announcement struct {
	finding *compliance.Finding
	images  []compliance.ImageFinding
	since   metav1.Time // of the first of the images
}

// enter stores a result. It returns the events to record now, and how many wait for the next
// result. A violation that cannot be checked at the moment is neither new nor over.
func (l *ledger) enter(result *compliance.Result, now time.Time) (selected []announcement, waiting int) {
	next := &ledger{known: make(map[violation]entry, len(l.known)), violating: map[violation]bool{}}
	var all []announcement
	for i := range result.Findings {
		f := &result.Findings[i]
		n, starting := announcement{finding: f}, reported(f)
		for j := range f.Images {
			image := &f.Images[j]
			key := keyOf(f, image.Image)
			e, known := l.find(f, image)
			if !known {
				if image.Verdict == policy.CouldNotCheck {
					continue
				}
				e = l.begin(key, now)
			}
			next.known[key] = e
			if e.announced {
				next.violating[keyOf(f, "")] = true
			}
			if !e.announced && image.Verdict != policy.CouldNotCheck && !starting[image.Image] {
				n.images = append(n.images, *image)
				if len(n.images) == 1 || e.since.Before(&n.since) {
					n.since = e.since
				}
			}
		}
		workload := keyOf(f, "")
		if l.violating[workload] || l.violating[workload.listed()] {
			next.violating[workload] = true
		}
		if len(n.images) > 0 || f.Verdict == policy.Admitted && next.violating[workload] {
			all = append(all, n)
		}
	}
	selected = selectNow(all)
	for _, n := range selected {
		next.mark(n)
	}
	*l = *next
	return selected, len(all) - len(selected)
}

// find returns the entry of a violation. If the kubelet has reported the digest of a tag since, it
// is the entry of the tag.
func (l *ledger) find(f *compliance.Finding, image *compliance.ImageFinding) (entry, bool) {
	names := []string{image.Image}
	if image.Tag != "" {
		names = append(names, tagged(image))
	}
	for _, name := range names {
		key := keyOf(f, name)
		if e, known := l.known[key]; known {
			return e, true
		}
		if e, known := l.known[key.listed()]; known {
			return e, true
		}
	}
	return entry{}, false
}

// begin returns the entry of a new violation.
func (l *ledger) begin(key violation, now time.Time) entry {
	last, full := l.last[key.policy]
	return entry{since: metav1.NewTime(now.Truncate(time.Second)), announced: full && compareViolations(key, last) >= 0}
}

// reported returns the tags for which the workload also runs a violating digest. Such a tag has no
// event until the kubelet reports whether it is the same image.
func reported(f *compliance.Finding) map[string]bool {
	tags := map[string]bool{}
	for i := range f.Images {
		if image := &f.Images[i]; image.Tag != "" && image.Verdict != policy.CouldNotCheck {
			tags[tagged(image)] = true
		}
	}
	return tags
}

// tagged returns the image with the Pod's tag, its name before the kubelet reported a digest.
func tagged(image *compliance.ImageFinding) string {
	repository, _, _ := strings.Cut(image.Image, "@")
	return repository + ":" + image.Tag
}

// selectNow selects the events to record now. Violations come before their ends. Within each of
// these, the first event of every namespace comes before the second of any. The longest wait comes
// first.
func selectNow(all []announcement) []announcement {
	ends := func(n announcement) int { return min(len(n.images), 1) ^ 1 }
	slices.SortStableFunc(all, func(a, b announcement) int {
		return cmp.Or(cmp.Compare(ends(a), ends(b)), a.since.Compare(b.since.Time))
	})
	ranks, of := make(map[*compliance.Finding]int, len(all)), map[string]int{}
	for _, n := range all {
		namespace := n.finding.Workload.Namespace
		ranks[n.finding] = of[namespace]
		of[namespace]++
	}
	chosen := slices.DeleteFunc(slices.Clone(all),
		func(n announcement) bool { return ranks[n.finding] >= maxPerNamespace })
	slices.SortStableFunc(chosen, func(a, b announcement) int {
		return cmp.Or(cmp.Compare(ends(a), ends(b)), cmp.Compare(ranks[a.finding], ranks[b.finding]))
	})
	return chosen[:min(len(chosen), maxAnnounced)]
}

// mark marks the event of a workload as recorded.
func (l *ledger) mark(n announcement) {
	workload := keyOf(n.finding, "")
	if len(n.images) == 0 {
		delete(l.violating, workload)
		return
	}
	l.violating[workload] = true
	for i := range n.images {
		key := keyOf(n.finding, n.images[i].Image)
		l.known[key] = entry{since: l.known[key].since, announced: true}
	}
}

func keyOf(f *compliance.Finding, image string) violation {
	return violation{f.Policy, f.Workload, image}
}

// first returns the first violations of a policy. findings are in the order of the status.
func (l *ledger) first(findings []compliance.Finding) []v1alpha1.Violation {
	var all []v1alpha1.Violation
	for i := range findings {
		f := &findings[i]
		for _, image := range f.Images {
			if image.Verdict == policy.CouldNotCheck {
				continue
			}
			if len(all) == maxListed {
				return all
			}
			all = append(all, v1alpha1.Violation{
				Namespace: f.Workload.Namespace, Kind: f.Workload.Kind, Name: f.Workload.Name, Image: image.Image,
				Reason: image.Reason, MissingRoles: image.Missing, Since: l.known[keyOf(f, image.Image)].since,
			})
		}
	}
	return all
}
