package store

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkPublicationGrowth compares the time of a publication with 10,000 repositories in the
// store and with 10. It alternates between the two, so that other load on the machine affects both.
func BenchmarkPublicationGrowth(b *testing.B) {
	const batch = 1000
	prepare := func(n int) func() float64 {
		bench := newBench(&scripted{})
		k := acmeKey("registry.example.com/acme/app-7")
		bench.update(func(old *Snapshot) *Snapshot {
			next := *old
			next.evidence = estate(n)
			return &next
		})
		root := bench.Load().Root("acme").Verifier
		return func() float64 {
			begin := time.Now()
			for range batch {
				if published, _ := bench.putEvidence(k, root, bench.Load().evidence.get(k),
					&cached{evidence: &fact{}}); !published {
					b.Fatal("not published")
				}
			}
			return float64(time.Since(begin)) / batch
		}
	}
	few, many := prepare(10), prepare(10_000)
	var short, long []float64
	for b.Loop() {
		short, long = append(short, few()), append(long, many())
	}
	slices.Sort(short)
	slices.Sort(long)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(long[len(long)/2]/short[len(short)/2], "x/growth")
}
