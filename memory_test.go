package main

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestMemoryIsSharedOut(t *testing.T) {
	for limit, want := range map[int64]memory{
		math.MaxInt64: {decoding: 136 << 20, evidence: 1 << 30},
		900 << 20:     {decoding: 136 << 20, evidence: 360 << 20},
		240 << 20:     {decoding: 40 << 20, evidence: 96 << 20},
	} {
		if got := share(limit); got != want {
			t.Errorf("share(%d) = %+v, want %+v", limit, got, want)
		}
	}
}

func TestGarbageTargetIsTheEnvironmentsFirst(t *testing.T) {
	for set, want := range map[string]int{"": gcPercent, "200": 200} {
		t.Run("GOGC="+set, func(t *testing.T) {
			before := debug.SetGCPercent(200) // as the runtime reads GOGC
			defer debug.SetGCPercent(before)
			t.Setenv("GOGC", set)
			limitGarbage()
			if got := debug.SetGCPercent(200); got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}
