package inventory

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/text"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// batchImages is about how many distinct images are evaluated together. The store drops
	// unsigned repositories beyond its own limit, so all images at once could miss evidence.
	batchImages = 400
	// fetchesAtOnce is how many subjects are fetched at the same time.
	fetchesAtOnce = 16
	// maxRounds is the maximum number of times that an evaluation is repeated with more evidence: a
	// tag, then its digest, then what that refers to.
	maxRounds = 8
	// maxFaults is the maximum number of fetch errors that are reported.
	maxFaults = 10
	// maxFault bounds the text of one of them, in bytes.
	maxFault = 400
)

// Engine evaluates Pods with the parts of the manager.
type Engine struct {
	// Policies holds the policies.
	Policies *store.Store
	// Evidence holds the trust roots and their evidence, which Tracker fetches into it. It may be
	// another store than Policies.
	Evidence *store.Store
	Tracker  *store.Tracker
	Clock    clock.PassiveClock
	// Timeout is the time for one fetch.
	Timeout time.Duration
	// Progress is called after each batch with the number of Pods evaluated, of those that are
	// distinct. It may be nil.
	Progress func(done, all int)
}

// outcome is the outcome for all Pods.
type outcome struct {
	findings []compliance.Finding
	// faults are the distinct texts of the fetches that failed, at most maxFaults.
	faults []string
}

// evaluate checks all Pods against the policies, and fetches the evidence for that.
func (e *Engine) evaluate(ctx context.Context, r *Running) (outcome, error) {
	var o outcome
	faults, done := map[string]bool{}, 0
	failed := map[trust.Key]bool{}
	for _, batch := range batches(r.Pods) {
		result, err := e.batch(ctx, r, batch, failed, faults)
		if err != nil {
			return o, err
		}
		o.findings = append(o.findings, result.Findings...)
		if done += len(batch); e.Progress != nil {
			e.Progress(done, len(r.Pods))
		}
	}
	for fault := range faults {
		o.faults = append(o.faults, fault)
	}
	slices.Sort(o.faults)
	o.faults = o.faults[:min(len(o.faults), maxFaults)]
	return o, nil
}

// batch evaluates some Pods. It repeats the evaluation until no evidence is missing that can be
// fetched.
func (e *Engine) batch(ctx context.Context, r *Running, pods []compliance.Pod, failed map[trust.Key]bool,
	faults map[string]bool) (*compliance.Result, error) {
	for round := 0; ; round++ {
		evidence := e.Evidence.Load()
		result := compliance.Evaluate(compliance.Input{
			Pods: pods, Namespaces: r.Namespaces, Policies: e.Policies.Load().Policies, Roots: evidence,
			Now: e.Clock.Now(),
		})
		var missing []trust.Key
		for _, k := range result.Needs {
			if _, _, err := evidence.Evidence(k); errors.Is(err, policy.ErrNotLoaded) && !failed[k] {
				missing = append(missing, k)
			}
		}
		if len(missing) == 0 || round == maxRounds {
			return result, nil
		}
		e.fetch(ctx, missing, failed, faults)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// fetch fetches subjects into the store. It adds those that fail to failed.
func (e *Engine) fetch(ctx context.Context, keys []trust.Key, failed map[trust.Key]bool, faults map[string]bool) {
	ctx = trust.WithPurpose(ctx, trust.Purpose{Known: true})
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(fetchesAtOnce)
	for _, k := range keys {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, e.Timeout)
			defer cancel()
			if err := e.Tracker.Ensure(ctx, k); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[k] = true
				faults[text.Cut("TrustRoot "+k.Root+": "+err.Error(), maxFault)] = true
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
}

// batches divides the Pods so that each workload is in one batch.
func batches(pods []compliance.Pod) [][]compliance.Pod {
	pods = slices.Clone(pods)
	slices.SortFunc(pods, func(a, b compliance.Pod) int { return compareWorkloads(a.Workload, b.Workload) })
	var all [][]compliance.Pod
	begin, images := 0, map[compliance.Image]bool{}
	for i := range pods {
		if len(images) >= batchImages && pods[i].Workload != pods[i-1].Workload {
			all, begin = append(all, pods[begin:i]), i
			clear(images)
		}
		for _, image := range pods[i].Images {
			images[image] = true
		}
	}
	if begin < len(pods) {
		all = append(all, pods[begin:])
	}
	return all
}

func compareWorkloads(a, b compliance.Workload) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Kind, b.Kind),
		strings.Compare(a.Name, b.Name), strings.Compare(a.APIVersion, b.APIVersion))
}
