package main

import (
	"math"
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
