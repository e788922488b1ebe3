package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/testenv/registryserver"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
	"github.com/countersign-dev/countersign/test/digests"
	"github.com/countersign-dev/countersign/webhooks"
)

const (
	// resolveInterval is for how long an answer about a tag counts: the default of a TrustRoot.
	resolveInterval = 10 * time.Second
	// namespaces have the Pods of the known tags. One alone has only a share of the requests.
	namespaces = 10
)

// tagged is a real image registry with one image, which two roles have signed as test/digests does.
// A proxy in front of it delays and counts requests.
type tagged struct {
	*faultproxy.Proxy
	near place
	away place // behind the proxy
	tags []string
	hex  string // of the digest of every tag
}

// place is one address of a registry.
type place struct {
	host string
	ca   *tlstest.CA
}

func (p place) repository() string { return p.host + "/acme/app" }

// newTagged pushes the image under n tags of one repository, and its signatures.
func newTagged(b *testing.B, near place, n int, options ...remote.Option) *tagged {
	b.Helper()
	t := &tagged{Proxy: faultproxy.Run(b, "https://"+near.host, near.ca), near: near}
	t.away = place{strings.TrimPrefix(t.URL, "https://"), t.CA}
	repository, err := name.NewRepository(near.repository())
	check(b, err)
	image, err := random.Image(256, 1)
	check(b, err)
	digest, err := image.Digest()
	check(b, err)
	t.hex = digest.Hex
	check(b, remote.Write(repository.Digest(digest.String()), image, options...))
	for _, role := range []string{"ci", "qa"} {
		check(b, digests.Sign(repository.Digest(digest.String()), role, options...))
	}
	for i := range n {
		t.tags = append(t.tags, fmt.Sprintf("v%d", i))
	}
	each(b, n, 4, func(_ context.Context, i int) error {
		return remote.Tag(repository.Tag(t.tags[i]), image, options...)
	})
	return t
}

// newDistribution runs the distribution registry, which lists referrers under a tag.
func newDistribution(b *testing.B, n int) *tagged {
	b.Helper()
	server := distribution.Run(b, distribution.Options{})
	return newTagged(b, place{server.Host, server.CA}, n, server.Options(b.Context())...)
}

// delayed delays every further request and resets the count.
func (t *tagged) delayed(by time.Duration) {
	t.Set()
	if by > 0 {
		t.Set(faultproxy.Fault{Delay: by})
	}
	t.Reset()
}

// images returns a reader of the registry, without a connection to it.
func (p place) images(b *testing.B, observer registry.Observer) *registry.Images {
	b.Helper()
	hosts := registry.NewHosts(time.Now)
	hosts.Observer = observer
	images, err := registry.NewImages(registry.ImagesConfig{
		Registries: map[string]registry.Config{p.host: {CABundle: string(p.ca.PEM)}}, Hosts: hosts,
	})
	check(b, err)
	return images
}

// gate returns the handlers of a manager that knows nothing of the registry and has no connection
// to it.
func (p place) gate(b *testing.B) *http.ServeMux {
	b.Helper()
	gate, _ := p.counted(b)
	return gate
}

// counted is gate, with the number of requests that the manager has sent.
func (p place) counted(b *testing.B) (*http.ServeMux, *counter) {
	b.Helper()
	sent := &counter{}
	e := emptyEstate(b, digests.NewRoot(p.images(b, sent), resolveInterval, time.Now), 0)
	e.policy(b, "production", v1alpha1.ImagePattern(p.host+"/**"))
	mux := http.NewServeMux()
	e.gate().Register(mux.Handle)
	return mux, sent
}

// counter counts requests to registries.
type counter struct{ atomic.Int64 }

// Requested implements registry.Observer.
func (c *counter) Requested(registry.Exchange) { c.Add(1) }

// pins sends the review of a new Pod to the handler that pins.
func pins(gate http.Handler, body []byte) error {
	return admitted(gate, webhooks.MutatePath, body, true)
}

// BenchmarkResolve requests the digest of a tag from the distribution registry, over a connection
// that is open already.
func BenchmarkResolve(b *testing.B) {
	t := newDistribution(b, 1)
	images := t.away.images(b, nil)
	took := map[time.Duration][]time.Duration{}
	for b.Loop() {
		for range 5 {
			for _, by := range []time.Duration{0, latency} {
				t.delayed(by)
				begin := time.Now()
				digest, err := images.Resolve(b.Context(), t.away.repository(), t.tags[0])
				took[by] = append(took[by], time.Since(begin))
				check(b, err)
				if digest != "sha256:"+t.hex || len(t.Requests()) != 1 {
					b.Fatalf("got %s after %d requests, want %s after one", digest, len(t.Requests()), t.hex)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(took[0])), "ms/0ms-away")
	b.ReportMetric(milliseconds(median(took[latency])), "ms/100ms-away")
}

// BenchmarkTagFirstSight sends the first Pod of a tag to the handler that pins: nothing is known of
// the tag, nor of its digest. It alternates between no delay and a delay of 100 ms for each
// request, as BenchmarkFirstSight does. One registry serves the referrers API. The other is the
// distribution registry, which does not.
func BenchmarkTagFirstSight(b *testing.B) {
	b.Run("referrers-API", func(b *testing.B) {
		server := registryserver.Run(b)
		benchmarkTagFirstSight(b, newTagged(b, place{server.Host, server.CA}, 1, server.Options(b.Context())...))
	})
	b.Run("tag-schema", func(b *testing.B) { benchmarkTagFirstSight(b, newDistribution(b, 1)) })
}

func benchmarkTagFirstSight(b *testing.B, t *tagged) {
	b.Helper()
	body := review(b, t.away.repository()+":"+t.tags[0], 0)
	took := map[time.Duration][]time.Duration{}
	most := 0
	for b.Loop() {
		for range 5 {
			for _, by := range []time.Duration{0, latency} {
				gate := t.away.gate(b)
				t.delayed(by)
				begin := time.Now()
				check(b, pins(gate, body))
				took[by] = append(took[by], time.Since(begin))
				most = max(most, len(t.Requests()))
			}
		}
	}
	near, distant := took[0], took[latency]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(near)), "ms/0ms-away")
	b.ReportMetric(milliseconds(median(distant)), "ms/100ms-away")
	b.ReportMetric(float64((slices.Min(distant)-slices.Min(near)).Round(latency))/float64(latency), "round-trips")
	b.ReportMetric(float64(most), "requests")
}

// BenchmarkTagHerd sends 500 Pods of one new tag to the gate at the same time, each to both
// handlers. The distribution registry responds after 100 ms, so no Pod finds the tag known. Every
// Pod must be admitted. The requests are compared with those of a first sight by one Pod.
func BenchmarkTagHerd(b *testing.B) {
	t := newDistribution(b, 1)
	image := t.away.repository() + ":" + t.tags[0]
	var mutate, validate [][]byte
	for i := range herd {
		mutate = append(mutate, review(b, image, i))
		validate = append(validate, review(b, image+"@sha256:"+t.hex, i))
	}
	t.delayed(latency)
	check(b, pins(t.away.gate(b), mutate[0]))
	alone, requests := len(t.Requests()), 0
	var times []time.Duration
	for b.Loop() {
		gate := t.away.gate(b)
		t.Reset()
		begin := time.Now()
		each(b, herd, herd, func(_ context.Context, i int) error {
			return errors.Join(pins(gate, mutate[i]), admitted(gate, webhooks.ValidatePath, validate[i], false))
		})
		times = append(times, time.Since(begin))
		requests = max(requests, len(t.Requests()))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(times)), "ms/herd")
	b.ReportMetric(float64(requests), "requests")
	b.ReportMetric(float64(requests)/float64(alone), "x/first-sight")
}

// BenchmarkKnownTags requests 1,000 known tags again once in a resolveInterval of 10 s, evenly
// spread: a Pod of each is created, in ten namespaces. Each answer has become too old by then, so
// each Pod waits for a request to the distribution registry.
//
// The first round is at no added latency and without the proxy, so that the processor time is that
// of the gate and its client alone. The second is behind the proxy with 100 ms.
func BenchmarkKnownTags(b *testing.B) {
	t := newDistribution(b, many)
	for b.Loop() {
		t.delayed(0)
		near, away := t.known(b, t.near), t.known(b, t.away)
		time.Sleep(resolveInterval + resolveInterval/20) // until every answer is too old

		used, began := processorTime(b), time.Now()
		waits := near.round(b)
		used, took := processorTime(b)-used, time.Since(began)
		b.ReportMetric(float64(near.sent.Load())/took.Seconds(), "requests/s")
		b.ReportMetric(near.renewed(), "%/0ms-away-renewed")
		b.ReportMetric(100*used.Seconds()/took.Seconds(), "%/cpu")
		b.ReportMetric(milliseconds(median(waits)), "ms/0ms-away")
		b.ReportMetric(milliseconds(percentile(waits, 99)), "ms/0ms-away-p99")

		t.delayed(latency)
		waits = away.round(b)
		b.ReportMetric(away.renewed(), "%/100ms-away-renewed")
		b.ReportMetric(milliseconds(median(waits)), "ms/100ms-away")
		b.ReportMetric(milliseconds(percentile(waits, 99)), "ms/100ms-away-p99")
	}
	b.ReportMetric(0, "ns/op")
}

// known is a gate that knows every tag of a registry, and the review of a Pod of each.
type known struct {
	gate   http.Handler
	sent   *counter
	bodies [][]byte
}

// known returns a gate that has requested every tag.
func (t *tagged) known(b *testing.B, at place) *known {
	b.Helper()
	gate, sent := at.counted(b)
	k := &known{gate: gate, sent: sent}
	for i, tag := range t.tags {
		body := review(b, at.repository()+":"+tag, i)
		team := fmt.Appendf(nil, `"namespace":"team-%d"`, i%namespaces)
		k.bodies = append(k.bodies, bytes.ReplaceAll(body, []byte(`"namespace":"shop"`), team))
	}
	each(b, len(k.bodies), 8, func(_ context.Context, i int) error { return pins(k.gate, k.bodies[i]) })
	return k
}

// round sends each review once, evenly spread over an interval, and returns how long each took. It
// counts the requests of the round alone.
func (k *known) round(b *testing.B) []time.Duration {
	b.Helper()
	k.sent.Store(0)
	took, failed := make([]time.Duration, len(k.bodies)), make([]error, len(k.bodies))
	tick := time.NewTicker(resolveInterval / time.Duration(len(k.bodies)))
	defer tick.Stop()
	var wg sync.WaitGroup
	for i, body := range k.bodies {
		<-tick.C
		wg.Go(func() {
			begin := time.Now()
			failed[i] = pins(k.gate, body)
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	check(b, errors.Join(failed...))
	if k.sent.Load() == 0 {
		b.Fatal("got no request to the registry, want one for each answer that is too old")
	}
	return took
}

// renewed returns the percentage of the tags in a round that the registry was queried about. For
// the others, no answer came within the two seconds that a request waits for one, and the last one
// counted.
func (k *known) renewed() float64 { return 100 * float64(k.sent.Load()) / float64(len(k.bodies)) }
