package workload

import "testing"

func BenchmarkRead(b *testing.B) {
	k := kind(b, "Deployment")
	raw := marshal(b, objects(everything())["Deployment"])
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Read(raw); err != nil {
			b.Fatal(err)
		}
	}
}
