// Package metrics counts and times what the manager does, for Prometheus. Labels are bounded: names
// of policies, trust roots and namespaces that an administrator made, and constants of the api
// package; never an image, a Pod or a user. The series of what was deleted are gone with the next
// scrape. It never decides anything, and a nil *Metrics counts nothing.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/policy"
	"github.com/countersign-dev/countersign/internal/store"
)

// namespace begins the name of every metric.
const namespace = "countersign"

// Label names, and the values of "result" and "cause" that are no reasons of the api package.
const (
	labelPolicy    = "policy"
	labelTrustRoot = "trust_root"
	labelNamespace = "namespace"
	labelState     = "state"

	resultOK       = "ok"
	resultUnsigned = "unsigned"
)

// Why a webhook configuration was written.
const (
	// CauseCreated says that it was not there: after an installation, or because somebody has
	// deleted it.
	CauseCreated = "created"
	// CauseRestored says that it was not as it must be.
	CauseRestored = "restored"
)

// Why a request was refused before it was read.
const (
	// RefusedBusy says that there was no room for it.
	RefusedBusy = "busy"
	// RefusedClient says that its client was not verified.
	RefusedClient = "client"
	// RefusedConnections says that there were too many connections over HTTP/2.
	RefusedConnections = "connections"
)

// Metrics are the metrics of one manager. Make them with New; they are safe for concurrent use.
type Metrics struct {
	decisions, breakGlass, unrecorded, refused, refreshes, writes *prometheus.CounterVec
	admission, verification                                       *prometheus.HistogramVec

	gauges gauges
	state  atomic.Pointer[State]
}

// New registers the metrics. It panics where a registry holds them already.
func New(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(
			prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets()}, labels)
	}
	m := &Metrics{
		decisions: counter("decisions_total",
			"Decisions on distinct images of admission requests, by each policy that covers the image.", labelPolicy,
			"verdict", "reason"),
		breakGlass: counter("break_glass_admissions_total",
			"Requests admitted only because break-glass is on in their namespace.", labelNamespace),
		unrecorded: counter("break_glass_unrecorded_total",
			"Admissions by break-glass beyond those of which each is recorded in an event and the log.",
			labelNamespace),
		refused: counter("admission_refused_total",
			"Admission requests that were refused before they were read.", "reason"),
		refreshes: counter("refreshes_total",
			"Repositories fetched and verified under a trust root, the first time or anew.", labelTrustRoot, "result"),
		writes: counter("webhook_configuration_writes_total",
			"Webhook configurations that were created, or restored after a change.", "configuration", "cause"),
		admission: histogram("admission_duration_seconds",
			"Time from the arrival of an admission request to its answer.", "handler", "outcome"),
		verification: histogram("verification_duration_seconds",
			"Time to fetch and verify what a signing server has on a repository.", "format", "stage", "result"),
		gauges: newGauges(),
	}
	r.MustRegister(m)
	return m
}

// buckets run from 0.1 ms, which an answer from memory takes, to 10 s, when the API server stops
// waiting. 7 s is the deadline inside.
func buckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 7, 10}
}

// Decided counts the decision on one image: by each policy that covers it, with its verdict and
// reason. It is called once for each distinct image of a request, with the decision that stood.
// Where no policy covers the image, the policy is "".
func (m *Metrics) Decided(d policy.Decision) {
	if m == nil {
		return
	}
	for i := range d.Outcomes {
		o := &d.Outcomes[i]
		m.decisions.WithLabelValues(o.Policy, verdict(o.Verdict), o.Reason).Inc()
	}
	if len(d.Outcomes) > 0 {
		return
	}
	reason := v1alpha1.ReasonNotCovered
	if d.Image == (imageref.Ref{}) {
		reason = v1alpha1.ReasonInvalidImage
	}
	m.decisions.WithLabelValues("", verdict(d.Verdict), reason).Inc()
}

// verdict names a verdict; what is none of them denies.
func verdict(v policy.Verdict) string {
	switch v {
	case policy.Admitted:
		return "Admitted"
	case policy.CouldNotCheck:
		return "CouldNotCheck"
	case policy.Denied:
	}
	return "Denied"
}

// Admission notes how long one admission request took. handler is "mutate" or "validate", outcome
// "admitted", "denied", "could_not_check", "unreadable" or "break_glass".
func (m *Metrics) Admission(handler, outcome string, took time.Duration) {
	if m != nil {
		m.admission.WithLabelValues(handler, outcome).Observe(took.Seconds())
	}
}

// BreakGlass counts one admission that only the break-glass label of the namespace allowed.
func (m *Metrics) BreakGlass(namespace string) {
	if m != nil {
		m.breakGlass.WithLabelValues(namespace).Inc()
	}
}

// BreakGlassUnrecorded counts one admission by break-glass that is recorded in no event and not in
// the log.
func (m *Metrics) BreakGlassUnrecorded(namespace string) {
	if m != nil {
		m.unrecorded.WithLabelValues(namespace).Inc()
	}
}

// Refused counts one request that was refused for one of the reasons above.
func (m *Metrics) Refused(reason string) {
	if m != nil {
		m.refused.WithLabelValues(reason).Inc()
	}
}

// Verified implements store.Observer.
func (m *Metrics) Verified(v store.Verification) {
	if m == nil {
		return
	}
	result := resultOK
	switch {
	case v.Fault != nil:
		result = v.Fault.Reason
	case v.Unsigned:
		result = resultUnsigned
	}
	m.verification.WithLabelValues(v.Format, v.Stage, result).Observe(v.Took.Seconds())
	if v.Stage == store.StageFirst || v.Stage == store.StageRefresh {
		m.refreshes.WithLabelValues(v.Root, result).Inc()
	}
}

// ConfigurationWritten counts one write of a webhook configuration, "mutating" or "validating", for
// one of the causes above.
func (m *Metrics) ConfigurationWritten(configuration, cause string) {
	if m != nil {
		m.writes.WithLabelValues(configuration, cause).Inc()
	}
}

func (m *Metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.decisions, m.breakGlass, m.unrecorded, m.refused, m.refreshes, m.writes, m.admission, m.verification,
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.vectors() {
		v.Describe(ch)
	}
	m.gauges.describe(ch)
}

// Collect implements prometheus.Collector. What belongs to a policy, a trust root or a namespace
// that is no more is dropped before anything is written.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	if state := m.state.Load(); state != nil {
		namespaces := state.namespaces()
		m.prune(state, namespaces)
		m.gauges.collect(ch, state, namespaces)
	}
	for _, v := range m.vectors() {
		v.Collect(ch)
	}
}
