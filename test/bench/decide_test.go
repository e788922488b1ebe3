package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkDecide measures one decision with 10 and with 1,000 policies and repositories of 100
// tags, over evidence of the real verifier. The decisions are about ten images. The rest of the
// store must make no difference.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{few, many} {
		b.Run(fmt.Sprintf("size=%d", n), func(b *testing.B) {
			e := newEstate(b, n)
			now := time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := e.decide(e.images[i%few*(n/few)], now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecideGrowth measures how much longer the same decisions take with 1,000 policies and
// repositories than with 10. It alternates between the two, so that other load on the machine
// affects both. A third series decides on another of the 1,000 repositories each time. It takes
// longer because the processor's caches cannot hold the evidence of all repositories.
func BenchmarkDecideGrowth(b *testing.B) {
	small, large := newEstate(b, few), newEstate(b, many)
	now := time.Now()
	batch := func(e *estate, among int) float64 {
		begin := time.Now()
		for i := range many {
			if err := e.decide(e.images[i%among], now); err != nil {
				b.Fatal(err)
			}
		}
		return float64(time.Since(begin)) / many
	}
	var short, long, scattered []float64
	for b.Loop() {
		short, long, scattered = append(short, batch(small, few)), append(long, batch(large, few)), append(scattered,
			batch(large, many))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(long)/median(short), "x/growth")
	b.ReportMetric(median(scattered), "ns/scattered-decision")
}
