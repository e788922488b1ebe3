// Package metrics counts and times the work of the manager, for Prometheus.
//
// The number of label values is bounded: they are names of policies, trust roots and namespaces,
// which administrators create, constants of the api package, and up to 64 hosts of servers. They
// are never an image, a Pod or a user. The next scrape after the deletion of an object drops its
// series. The package never decides anything, and a nil *Metrics counts nothing.
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

// Label names, and the values of the label "result" that are not reasons of the api package.
const (
	labelPolicy    = "policy"
	labelTrustRoot = "trust_root"
	labelNamespace = "namespace"
	labelState     = "state"
	labelHost      = "host"
	labelResult    = "result"

	resultOK       = "ok"
	resultUnsigned = "unsigned"
)

// Causes of a write of a webhook configuration.
const (
	// CauseCreated says that the configuration did not exist: after an installation or a deletion.
	CauseCreated = "created"
	// CauseRestored says that the configuration had been changed.
	CauseRestored = "restored"
)

// Reasons for refusing a request before reading it.
const (
	// RefusedBusy says that no memory was left for the request.
	RefusedBusy = "busy"
	// RefusedClient says that the client certificate was missing or not verified.
	RefusedClient = "client"
	// RefusedConnections says that there were too many HTTP/2 connections.
	RefusedConnections = "connections"
)

// Metrics are the metrics of one manager. Create them with New. They are safe for concurrent use.
type Metrics struct {
	decisions, breakGlass, unrecorded, refused, refreshes, writes *prometheus.CounterVec
	admission, verification                                       *prometheus.HistogramVec

	hosts  *hosts
	gauges gauges
	state  atomic.Pointer[State]
}

// New creates and registers the metrics. It panics if the registry has them already.
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
			"Decisions on the distinct images of admission requests, one for each policy that covers the image.",
			labelPolicy, "verdict", "reason"),
		breakGlass: counter("break_glass_admissions_total",
			"Requests admitted only because break-glass is on in their namespace.", labelNamespace),
		unrecorded: counter("break_glass_unrecorded_total",
			"Admissions by break-glass that came too fast to be recorded each in an event and the log.",
			labelNamespace),
		refused: counter("admission_refused_total",
			"Admission requests that were refused before they were read.", "reason"),
		refreshes: counter("refreshes_total",
			"Fetches and verifications of a repository under a trust root, first ones and refreshes.",
			labelTrustRoot, labelResult),
		writes: counter("webhook_configuration_writes_total",
			"Writes of a webhook configuration that was missing or had been changed.", "configuration", "cause"),
		admission: histogram("admission_duration_seconds",
			"Time from the arrival of an admission request to its answer.", "handler", "outcome"),
		verification: histogram("verification_duration_seconds",
			"Time to fetch and verify the signatures of a repository.", "format", "stage", labelResult),
		hosts:  newHosts(),
		gauges: newGauges(),
	}
	r.MustRegister(m)
	return m
}

// buckets returns the bounds of the histograms, in seconds: from 0.1 ms, the time for an answer
// from memory, to 10 s, the timeout of the API server. 4.5 s is the deadline of a decision.
func buckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 7, 10}
}

// Decided counts the decision on one image, once for each policy that covers it, with its verdict
// and reason. If no policy covers the image, the label policy is "". Call it once for each distinct
// image of a request, with the final decision.
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

// verdict returns the label for a verdict. An unknown verdict is a denial.
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

// Admission records the duration of one admission request. handler is "mutate" or "validate";
// outcome is "admitted", "denied", "could_not_check", "unreadable" or "break_glass".
func (m *Metrics) Admission(handler, outcome string, took time.Duration) {
	if m != nil {
		m.admission.WithLabelValues(handler, outcome).Observe(took.Seconds())
	}
}

// BreakGlass counts one admission that needed the break-glass label of the namespace.
func (m *Metrics) BreakGlass(namespace string) {
	if m != nil {
		m.breakGlass.WithLabelValues(namespace).Inc()
	}
}

// BreakGlassUnrecorded counts one admission by break-glass that is recorded neither in an event nor
// in the log.
func (m *Metrics) BreakGlassUnrecorded(namespace string) {
	if m != nil {
		m.unrecorded.WithLabelValues(namespace).Inc()
	}
}

// Refused counts one refused request. reason is RefusedBusy, RefusedClient or RefusedConnections.
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

// ConfigurationWritten counts one write of a webhook configuration. configuration is "mutating" or
// "validating"; cause is CauseCreated or CauseRestored.
func (m *Metrics) ConfigurationWritten(configuration, cause string) {
	if m != nil {
		m.writes.WithLabelValues(configuration, cause).Inc()
	}
}

func (m *Metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.decisions, m.breakGlass, m.unrecorded, m.refused, m.refreshes, m.writes, m.admission, m.verification,
		m.hosts.requests, m.hosts.durations,
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range m.vectors() {
		v.Describe(ch)
	}
	m.gauges.describe(ch)
}

// Collect implements prometheus.Collector. It first drops the series of policies, trust roots and
// namespaces that no longer exist, and of hosts without requests.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.hosts.forgetIdle()
	if state := m.state.Load(); state != nil {
		namespaces := state.namespaces()
		m.prune(state, namespaces)
		m.gauges.collect(ch, state, namespaces)
	}
	for _, v := range m.vectors() {
		v.Collect(ch)
	}
}
