package metrics

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/countersign-dev/countersign/internal/store"
)

// gauges describes the gauges. Their values are read from the State at each scrape, so that no
// series outlives its object.
type gauges struct {
	gateReady, gated, certificateExpiry       *prometheus.Desc
	rootInfo, rootReady, rootFresh, rootRepos *prometheus.Desc
	rootExpiry, rootGrace                     *prometheus.Desc
	rootLast, rootOldest, rootInterval        *prometheus.Desc
	policyInfo, policyReady, policyWorkloads  *prometheus.Desc
	breakGlass                                *prometheus.Desc
}

func newGauges() gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	return gauges{
		gateReady: desc("gate_ready", "Whether this replica has loaded every policy and trust root and decides."),
		gated: desc("gated",
			"Whether both webhook configurations are correct, so that the API server calls the gate; only the leader "+
				"has it."),
		certificateExpiry: desc("serving_certificate_expiry_timestamp_seconds",
			"When this replica's serving certificate for admission expires."),
		rootInfo: desc("trust_root_info", "The signature format of a trust root; always 1.", labelTrustRoot, "format"),
		rootReady: desc("trust_root_ready", "Whether a trust root can be used, with all its keys read.",
			labelTrustRoot),
		rootFresh: desc("trust_root_fresh",
			"Whether the servers answer and the last fetch of every repository succeeded; absent before the first "+
				"request to them.", labelTrustRoot),
		rootRepos: desc("trust_root_repositories",
			"Tracked repositories, by the result of their last fetch.", labelTrustRoot, labelState),
		rootExpiry: desc("trust_root_expiry_timestamp_seconds",
			"Earliest expiry of the evidence in use, by kind of file.", labelTrustRoot, "file"),
		rootGrace: desc("trust_root_grace_repositories",
			"Repositories whose metadata has expired and is used within the grace of the trust root.", labelTrustRoot),
		rootLast: desc("trust_root_last_refresh_timestamp_seconds", "When a refresh of any repository last succeeded.",
			labelTrustRoot),
		rootOldest: desc("trust_root_oldest_refresh_timestamp_seconds",
			"Oldest among the last successful refreshes of the signed repositories.", labelTrustRoot),
		rootInterval: desc("trust_root_refresh_interval_seconds", "How often each repository is refreshed.",
			labelTrustRoot),
		policyInfo: desc("policy_info", "The mode of a policy; always 1.", labelPolicy, "mode"),
		policyReady: desc("policy_ready",
			"Whether a policy and all its trust roots can be used; it does not depend on the webhook configurations.",
			labelPolicy),
		policyWorkloads: desc("policy_workloads", "Running workloads that a policy covers; only the leader has them.",
			labelPolicy, labelState),
		breakGlass: desc("break_glass_namespaces",
			"Namespaces in which break-glass is on: the label has a reason as its value."),
	}
}

func (g *gauges) describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		g.gateReady, g.gated, g.certificateExpiry, g.rootInfo, g.rootReady, g.rootFresh, g.rootRepos, g.rootExpiry,
		g.rootGrace, g.rootLast, g.rootOldest, g.rootInterval,
		g.policyInfo, g.policyReady, g.policyWorkloads, g.breakGlass,
	} {
		ch <- d
	}
}

// emitter sends gauges to the collector.
type emitter chan<- prometheus.Metric

func (e emitter) number(d *prometheus.Desc, value float64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (e emitter) boolean(d *prometheus.Desc, value bool, labels ...string) {
	number := 0.
	if value {
		number = 1
	}
	e.number(d, number, labels...)
}

// timestamp sends a time as Unix seconds, and nothing for the zero time.
func (e emitter) timestamp(d *prometheus.Desc, value time.Time, labels ...string) {
	if !value.IsZero() {
		e.number(d, float64(value.UnixNano())/1e9, labels...)
	}
}

func (g *gauges) collect(e emitter, s *State, namespaces map[string]bool) {
	snapshot := s.Store.Load()
	e.boolean(g.gateReady, snapshot.Primed)
	if s.Gated != nil {
		if gated, known := s.Gated(); known {
			e.boolean(g.gated, gated)
		}
	}
	g.certificate(e, s)
	for _, name := range snapshot.RootNames() {
		g.root(e, name, snapshot.Root(name), s.Tracker.Status(name))
	}
	for _, name := range snapshot.PolicyNames() {
		p := snapshot.Policy(name)
		e.boolean(g.policyInfo, true, name, string(p.Mode()))
		e.boolean(g.policyReady, p.Ready(snapshot) == nil, name)
	}
	g.workloads(e, s, snapshot)
	if namespaces == nil {
		return
	}
	open := 0
	for _, breakGlass := range namespaces {
		if breakGlass {
			open++
		}
	}
	e.number(g.breakGlass, float64(open))
}

func (g *gauges) certificate(e emitter, s *State) {
	if s.Certificate == nil {
		return
	}
	if c, err := s.Certificate(nil); err == nil && c != nil && c.Leaf != nil {
		e.timestamp(g.certificateExpiry, c.Leaf.NotAfter)
	}
}

func (g *gauges) root(e emitter, name string, r *store.Root, status store.Status) {
	e.boolean(g.rootInfo, true, name, r.Format)
	e.boolean(g.rootReady, r.Verifier != nil, name)
	if r.Verifier == nil || status.Probed || status.Tracked > 0 {
		e.boolean(g.rootFresh, r.Verifier != nil && status.Server == nil && status.Failing == 0, name)
	}
	e.number(g.rootRepos, float64(status.Tracked-status.Failing), name, "fresh")
	e.number(g.rootRepos, float64(status.Failing), name, "failing")
	for kind, at := range status.Expiries {
		e.timestamp(g.rootExpiry, at, name, cmp.Or(kind, "other"))
	}
	e.number(g.rootGrace, float64(status.InGrace), name)
	e.timestamp(g.rootLast, status.Succeeded, name)
	e.timestamp(g.rootOldest, status.Oldest, name)
	if status.Interval > 0 {
		e.number(g.rootInterval, status.Interval.Seconds(), name)
	}
}

// workloads skips deleted policies: the last evaluation may be older than the deletion.
func (g *gauges) workloads(e emitter, s *State, snapshot *store.Snapshot) {
	if s.Ran == nil {
		return
	}
	result := s.Ran()
	if result == nil {
		return
	}
	for name, of := range result.Policies {
		if snapshot.Policy(name) == nil {
			continue
		}
		e.number(g.policyWorkloads, float64(of.Covered-of.Violating-of.Unchecked), name, "compliant")
		e.number(g.policyWorkloads, float64(of.Violating), name, "violating")
		e.number(g.policyWorkloads, float64(of.Unchecked), name, "unchecked")
	}
}
