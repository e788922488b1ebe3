package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/countersign-dev/countersign/internal/registry"
)

const (
	// maxHosts bounds the hosts with series of their own.
	maxHosts = 64
	// maxSignedHosts bounds those among them that no administrator named. Signatures can be copied
	// to any registry, so whoever creates Pods can make hosts with signed images.
	maxSignedHosts = maxHosts / 2
	// otherHosts is the label of all hosts without series of their own.
	otherHosts = "other"
	// idleHost is how long a host keeps its series without a request: twice the longest
	// refreshInterval.
	idleHost = 48 * time.Hour
)

// hosts counts and times the requests to servers, by host.
type hosts struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec

	mu     sync.Mutex // held while counting, so that no series comes back after forgetIdle
	known  map[string]*knownHost
	signed int       // the known hosts that no administrator named
	latest time.Time // the end of the last request to any host
}

// knownHost is a host with series of its own.
type knownHost struct {
	named bool
	last  time.Time // the end of the last request
}

func newHosts() *hosts {
	return &hosts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "registry_requests_total",
			Help: "Requests for signatures and revocation, to all servers, registries and token services.",
		}, []string{labelHost, labelResult}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "registry_request_duration_seconds",
			Help:    "Time from sending a request to a server to the last byte of the answer.",
			Buckets: hostBuckets(),
		}, []string{labelHost}),
		known: map[string]*knownHost{},
	}
}

// hostBuckets returns the bounds of the histogram by host, in seconds: from 5 ms, a server nearby,
// to 45 s, the time limit of a request. It has few, because each host has its own.
func hostBuckets() []float64 { return []float64{.005, .025, .1, .25, .5, 1, 2, 5, 15, 45} }

// Requested implements registry.Observer.
func (m *Metrics) Requested(e registry.Exchange) {
	if m != nil {
		m.hosts.count(e)
	}
}

func (h *hosts) count(e registry.Exchange) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latest = e.Ended
	label := h.label(e)
	h.requests.WithLabelValues(label, e.Result).Inc()
	if e.Sent {
		h.durations.WithLabelValues(label).Observe(e.Took.Seconds())
	}
}

// label returns the label of the host of a request. A host gets its own once an administrator named
// it, or a repository on it is known to be signed, if there are not too many. The caller holds the
// lock.
func (h *hosts) label(e registry.Exchange) string {
	k := h.known[e.Host]
	switch {
	case k != nil:
		if e.Named && !k.named {
			k.named = true
			h.signed--
		}
	case len(h.known) >= maxHosts:
		return otherHosts
	case e.Named:
		k = &knownHost{named: true}
	case e.Signed && h.signed < maxSignedHosts:
		k = &knownHost{}
		h.signed++
	default:
		return otherHosts
	}
	h.known[e.Host], k.last = k, e.Ended
	return e.Host
}

// forgetIdle drops the series of hosts without a request for a long time, in which others had some.
func (h *hosts) forgetIdle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, k := range h.known {
		if h.latest.Sub(k.last) <= idleHost {
			continue
		}
		delete(h.known, name)
		if !k.named {
			h.signed--
		}
		h.requests.DeletePartialMatch(prometheus.Labels{labelHost: name})
		h.durations.DeletePartialMatch(prometheus.Labels{labelHost: name})
	}
}
