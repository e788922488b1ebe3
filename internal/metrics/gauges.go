package metrics

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/countersign-dev/countersign/internal/store"
)

// gauges are read from the state at each scrape, so that none is ever left behind.
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
		gateReady: desc("gate_ready", "Whether this replica knows every policy and trust root and decides."),
		gated: desc("gated",
			"Whether both webhook configurations are as they must be, so that the API server asks the gate; only the "+
				"leader knows."),
		certificateExpiry: desc("serving_certificate_expiry_timestamp_seconds",
			"When the certificate expires with which this replica serves admission."),
		rootInfo: desc("trust_root_info", "What a trust root verifies.", labelTrustRoot, "format"),
		rootReady: desc("trust_root_ready", "Whether the keys of a trust root are read and it can be used.",
			labelTrustRoot),
		rootFresh: desc("trust_root_fresh",
			"Whether the signing server answers and the last fetch of every repository succeeded; absent before it "+
				"was asked.", labelTrustRoot),
		rootRepos: desc("trust_root_repositories",
			"Repositories that are kept up to date, by how their last fetch went.", labelTrustRoot, labelState),
		rootExpiry: desc("trust_root_expiry_timestamp_seconds",
			"Earliest expiry of the metadata in use, by file.", labelTrustRoot, "file"),
		rootGrace: desc("trust_root_grace_repositories",
			"Repositories whose metadata has expired and is used on the grace of the trust root.", labelTrustRoot),
		rootLast: desc("trust_root_last_refresh_timestamp_seconds", "When a refresh of any repository last succeeded.",
			labelTrustRoot),
		rootOldest: desc("trust_root_oldest_refresh_timestamp_seconds",
			"When the signed repository that waits the longest for a refresh to succeed had its last.", labelTrustRoot),
		rootInterval: desc("trust_root_refresh_interval_seconds", "How often each repository is refreshed.",
			labelTrustRoot),
		policyInfo: desc("policy_info", "The mode of a policy.", labelPolicy, "mode"),
		policyReady: desc("policy_ready",
			"Whether a policy was understood and all its trust roots can be used; it says nothing of the webhook "+
				"configurations.", labelPolicy),
		policyWorkloads: desc("policy_workloads", "Running workloads that a policy covers; only the leader has them.",
			labelPolicy, labelState),
		breakGlass: desc("break_glass_namespaces",
			"Namespaces in which break-glass is on: labelled for it, with a reason."),
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

// emitter writes gauges.
type emitter chan<- prometheus.Metric

func (e emitter) number(d *prometheus.Desc, value float64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (e emitter) truth(d *prometheus.Desc, value bool, labels ...string) {
	number := 0.
	if value {
		number = 1
	}
	e.number(d, number, labels...)
}

// moment leaves out a time that is not known.
func (e emitter) moment(d *prometheus.Desc, value time.Time, labels ...string) {
	if !value.IsZero() {
		e.number(d, float64(value.UnixNano())/1e9, labels...)
	}
}

func (g *gauges) collect(e emitter, s *State, namespaces map[string]bool) {
	snapshot := s.Store.Load()
	e.truth(g.gateReady, snapshot.Primed)
	if s.Gated != nil {
		if gated, known := s.Gated(); known {
			e.truth(g.gated, gated)
		}
	}
	g.certificate(e, s)
	for _, name := range snapshot.RootNames() {
		g.root(e, name, snapshot.Root(name), s.Tracker.Status(name))
	}
	for _, name := range snapshot.PolicyNames() {
		p := snapshot.Policy(name)
		e.truth(g.policyInfo, true, name, string(p.Mode()))
		e.truth(g.policyReady, p.Ready(snapshot) == nil, name)
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
		e.moment(g.certificateExpiry, c.Leaf.NotAfter)
	}
}

func (g *gauges) root(e emitter, name string, r *store.Root, held store.Status) {
	e.truth(g.rootInfo, true, name, r.Format)
	e.truth(g.rootReady, r.Root != nil, name)
	if r.Root == nil || held.Probed || held.Tracked > 0 {
		e.truth(g.rootFresh, r.Root != nil && held.Server == nil && held.Failing == 0, name)
	}
	e.number(g.rootRepos, float64(held.Tracked-held.Failing), name, "fresh")
	e.number(g.rootRepos, float64(held.Failing), name, "failing")
	for kind, at := range held.Expiries {
		e.moment(g.rootExpiry, at, name, cmp.Or(kind, "other"))
	}
	e.number(g.rootGrace, float64(held.InGrace), name)
	e.moment(g.rootLast, held.Succeeded, name)
	e.moment(g.rootOldest, held.Oldest, name)
	if held.Interval > 0 {
		e.number(g.rootInterval, held.Interval.Seconds(), name)
	}
}

// workloads leaves out policies that are no more: what runs is evaluated later than a policy is
// deleted.
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
