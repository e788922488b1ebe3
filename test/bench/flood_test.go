package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// madeUp is the number of made-up repositories that one namespace requests: 40 Pods of 32 images.
const madeUp = 1280

// BenchmarkFlood requests 1,280 made-up repositories from one namespace, and while they are in
// flight a signed one from another namespace, which is unknown too. It measures the time until that
// is verified, and counts the made-up ones that the real Notary server was asked for meanwhile.
func BenchmarkFlood(b *testing.B) {
	f := newFar(b)
	image, err := imageref.Parse(f.image)
	check(b, err)
	flood := func(by time.Duration) (took time.Duration, before int) {
		e := f.fresh(b)
		f.delayed(by)
		ctx, end := context.WithCancel(b.Context())
		var all, begun sync.WaitGroup
		for i := range madeUp {
			begun.Add(1)
			all.Go(func() {
				begun.Done()
				name := imageref.Ref{Host: host, Path: fmt.Sprint("made-up/", i)}
				_ = e.tracker.Ensure(trust.WithPurpose(ctx, trust.Purpose{Namespace: "evil"}), key(name))
			})
		}
		begun.Wait()
		begin := time.Now()
		check(b, e.tracker.Ensure(trust.WithPurpose(b.Context(), trust.Purpose{Namespace: "shop"}), key(image)))
		took = time.Since(begin)
		for _, r := range f.Requests() {
			if isTimestamp(r.Path) && strings.Contains(r.Path, "made-up") {
				before++
			}
		}
		check(b, e.decide(f.image, time.Now()))
		end()
		all.Wait()
		return took, before
	}
	var near, distant []time.Duration
	most := map[time.Duration]int{}
	for b.Loop() {
		for range 5 {
			for _, by := range []time.Duration{0, latency} {
				took, before := flood(by)
				most[by] = max(most[by], before)
				if by == 0 {
					near = append(near, took)
				} else {
					distant = append(distant, took)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(milliseconds(median(near)), "ms/0ms-away")
	b.ReportMetric(milliseconds(median(distant)), "ms/100ms-away")
	b.ReportMetric(float64(most[0]), "fetches-before/0ms-away")
	b.ReportMetric(float64(most[latency]), "fetches-before/100ms-away")
}
