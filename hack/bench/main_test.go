package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	got, err := read(strings.NewReader(`goos: linux
pkg: github.com/countersign-dev/countersign/test/bench
BenchmarkDecide/size=10-2   	  140767	      7649 ns/op	    1204 B/op
BenchmarkDecide/size=10-2   	  140767	      7650 ns/op	    1204 B/op
BenchmarkDecide/size=10-2   	  140767	      9000 ns/op	    1204 B/op
BenchmarkHandler/mutate-http1/clients=32-16         	       1	        53.08 %/rate
Benchmarks are run
PASS
ok  	github.com/countersign-dev/countersign/test/bench	68.748s
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[measurement][]float64{
		{"Decide/size=10", "ns/op"}: {7649, 7650, 9000}, {"Decide/size=10", "B/op"}: {1204, 1204, 1204},
		{"Handler/mutate-http1/clients=32", "%/rate"}: {53.08},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(measurement{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The table distinguishes met, missed and absent figures. Only an absent one fails.
func TestTable(t *testing.T) {
	measured := map[measurement][]float64{}
	for _, f := range figures() {
		measured[measurement{f.benchmark, f.unit}] = []float64{1}
	}
	var out strings.Builder
	if err := table(&out, figures(), measured); err != nil {
		t.Fatal(err)
	}
	for _, f := range figures() {
		want := f.verdict(f.scale())
		if f.least != nil && want != "MISSED" || f.most != nil && want != "met" {
			t.Errorf("%s: got %q for the value 1 and the bound %s", f.name, want, f.bound())
		}
		if !strings.Contains(out.String(), f.name) || !strings.Contains(out.String(), f.command()) {
			t.Errorf("got a table without %q", f.name)
		}
	}
	first := figures()[0]
	delete(measured, measurement{first.benchmark, first.unit})
	if err := table(&out, figures(), measured); err == nil || !strings.Contains(err.Error(), first.name) {
		t.Errorf("absent figure: got error %v, want one that names %s", err, first.name)
	}
}

func TestMedian(t *testing.T) {
	if got := median([]float64{9, 1, 2}); got != 2 {
		t.Errorf("got %v, want 2", got)
	}
}

func TestCommand(t *testing.T) {
	got := fmt.Sprint(figure{benchmark: "Decide/size=10"}.command())
	if want := "go test -run '^$' -bench '^BenchmarkDecide$/^size=10$' ./test/bench"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
