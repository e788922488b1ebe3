package metrics_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/countersign-dev/countersign/internal/metrics"
	"github.com/countersign-dev/countersign/internal/registry"
)

// counted is Metrics that count requests to hosts alone.
func counted() *bench {
	r := prometheus.NewPedanticRegistry()
	return &bench{Metrics: metrics.New(r), registry: r}
}

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestRequested(t *testing.T) {
	b := counted()
	for _, e := range []registry.Exchange{
		{Result: registry.ResultOK, Sent: true, Took: 200 * time.Millisecond},
		{Result: registry.ResultOK, Sent: true, Took: 3 * time.Second},
		{Result: registry.ResultRateLimited, Sent: true, Took: time.Millisecond},
		{Result: registry.ResultPaused},
	} {
		e.Host, e.Named, e.Ended = "notary.example.com", true, noon
		b.Requested(e)
	}
	b.Requested(registry.Exchange{Host: "made-up.example.com", Result: registry.ResultOK, Sent: true, Ended: noon})
	want := map[string]float64{
		`countersign_registry_requests_total{host="notary.example.com",result="ok"}`:           2,
		`countersign_registry_requests_total{host="notary.example.com",result="rate_limited"}`: 1,
		`countersign_registry_requests_total{host="notary.example.com",result="paused"}`:       1,
		`countersign_registry_requests_total{host="other",result="ok"}`:                        1,
		// without those that were not sent
		`countersign_registry_request_duration_seconds{host="notary.example.com"}`: 3,
		`countersign_registry_request_duration_seconds{host="other"}`:              1,
	}
	if diff := cmp.Diff(want, b.series(t)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// A host that has series of its own is counted under its name, whoever names it next.
func TestSignedHost(t *testing.T) {
	b := counted()
	e := registry.Exchange{Host: "registry.example.com", Result: registry.ResultOK, Ended: noon}
	b.Requested(e)
	e.Signed = true
	b.Requested(e)
	e.Signed = false
	b.Requested(e)
	want := map[string]float64{
		`countersign_registry_requests_total{host="other",result="ok"}`:                1,
		`countersign_registry_requests_total{host="registry.example.com",result="ok"}`: 2,
	}
	if diff := cmp.Diff(want, b.series(t)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// A client that may create Pods chooses the hosts of images. It may also copy a signed image to as
// many hosts as it likes. The hosts that administrators name keep their series.
func TestThreatMadeUpHostsMakeNoSeries(t *testing.T) {
	b := counted()
	request := func(name string, named, signed bool) {
		b.Requested(registry.Exchange{
			Host: name, Named: named, Signed: signed, Result: registry.ResultOK, Sent: true, Ended: noon,
		})
	}
	for i := range 1000 {
		request(fmt.Sprintf("made-up-%d.example.com", i), false, false)
	}
	if got := b.series(t); len(got) != 2 {
		t.Errorf("got series %v, want those of all other hosts alone", got)
	}
	for i := range 1000 {
		request(fmt.Sprintf("copy-%d.example.com", i), false, true)
	}
	request("copy-0.example.com", true, false) // from now on it counts as named, and another copy fits
	request("copy-1000.example.com", false, true)
	for i := range 1000 {
		request(fmt.Sprintf("named-%d.example.com", i), true, i%2 == 0)
	}
	labels := map[string]int{}
	for name := range b.series(t) {
		if host, found := strings.CutPrefix(name, `countersign_registry_requests_total{host="`); found {
			kind, _, _ := strings.Cut(host, "-")
			labels[kind]++
		}
	}
	if diff := cmp.Diff(map[string]int{"copy": 33, "named": 31, `other",result="ok"}`: 1}, labels); diff != "" {
		t.Errorf("hosts with series, by kind (-want +got):\n%s", diff)
	}
}

// A host that is no longer in use frees its series. The others keep what they have counted.
func TestIdleHosts(t *testing.T) {
	b := counted()
	request := func(name string, named bool, at time.Time) {
		b.Requested(registry.Exchange{
			Host: name, Named: named, Signed: !named, Result: registry.ResultOK, Sent: true, Ended: at,
		})
	}
	for i := range 32 {
		request(fmt.Sprintf("old-%d.example.com", i), false, noon)
	}
	request("named.example.com", true, noon)
	kept := `countersign_registry_requests_total{host="named.example.com",result="ok"}`
	request("named.example.com", true, noon.Add(48*time.Hour))
	if got := b.series(t); len(got) != 2*33 || got[kept] != 2 {
		t.Errorf("after two days: got %d series, and %v of the host in use, want 66 and 2", len(got), got[kept])
	}
	request("named.example.com", true, noon.Add(48*time.Hour+time.Second))
	if got := b.series(t); len(got) != 2 || got[kept] != 3 {
		t.Errorf("after more than two days: got series %v, want those of the host in use", got)
	}
	request("new.example.com", false, noon.Add(49*time.Hour))
	if got := withPrefix(b.series(t), `countersign_registry_requests_total{host="new.`); len(got) != 1 {
		t.Errorf("got series %v of a new host, want one", got)
	}
}
