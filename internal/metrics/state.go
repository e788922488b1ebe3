package metrics

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/compliance"
	"github.com/countersign-dev/countersign/internal/store"
)

// listTimeout is how long a scrape waits for the list of Namespaces from the cache.
const listTimeout = time.Second

// State is the source of the gauges. They are read from it at each scrape.
type State struct {
	Store   *store.Store
	Tracker *store.Tracker
	// Namespaces lists them from a cache.
	Namespaces client.Reader
	// Ran returns the last evaluation of the running workloads, nil on a replica that does not
	// evaluate them. The function may be nil.
	Ran func() *compliance.Result
	// Gated reports whether both webhook configurations are correct. known is false on a replica
	// that is not the leader. The function may be nil.
	Gated func() (gated, known bool)
	// Certificate returns the serving certificate of the webhook. The function may be nil.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// Show sets the source of the gauges. Before the first call there are no gauges.
func (m *Metrics) Show(s State) { m.state.Store(&s) }

// namespaces returns, for every Namespace, whether break-glass is on in it. It returns nil if the
// cache cannot list them.
func (s *State) namespaces() map[string]bool {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	var list corev1.NamespaceList
	if err := s.Namespaces.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is not filled yet; the next scrape tries again
	}
	all := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		all[list.Items[i].Name] = list.Items[i].Labels[v1alpha1.LabelBreakGlass] != ""
	}
	return all
}

// prune drops the counters of deleted objects. It reads the names of the counters before it loads
// the snapshot. Each counted object was in an older snapshot, so it is missing from this one only
// if it was deleted.
func (m *Metrics) prune(s *State, namespaces map[string]bool) {
	policies, roots := values(m.decisions, labelPolicy), values(m.refreshes, labelTrustRoot)
	snapshot := s.Store.Load()
	drop(m.decisions, labelPolicy, policies, func(name string) bool {
		return name != "" && snapshot.Policy(name) == nil
	})
	drop(m.refreshes, labelTrustRoot, roots, func(name string) bool { return snapshot.Root(name) == nil })
	if namespaces == nil {
		return
	}
	for _, counted := range []*prometheus.CounterVec{m.breakGlass, m.unrecorded} {
		drop(counted, labelNamespace, values(counted, labelNamespace), func(name string) bool {
			_, exists := namespaces[name]
			return !exists
		})
	}
}

// drop deletes the series with the values of a label for which deleted returns true.
func drop(vector *prometheus.CounterVec, label string, values map[string]bool, deleted func(string) bool) {
	for value := range values {
		if deleted(value) {
			vector.DeletePartialMatch(prometheus.Labels{label: value})
		}
	}
}

// values returns the values that a label has in the series of a vector.
func values(vector *prometheus.CounterVec, label string) map[string]bool {
	found := map[string]bool{}
	ch := make(chan prometheus.Metric)
	go func() {
		defer close(ch)
		vector.Collect(ch)
	}()
	for metric := range ch {
		var series dto.Metric
		if metric.Write(&series) != nil {
			continue
		}
		for _, pair := range series.GetLabel() {
			if pair.GetName() == label {
				found[pair.GetValue()] = true
			}
		}
	}
	return found
}
