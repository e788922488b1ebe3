package webhooks

import (
	"fmt"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	p := pace{burst: 2, every: 10 * time.Second}
	for i, want := range []struct {
		after     time.Duration
		ok, first bool
	}{
		{0, true, false}, {0, true, false}, {0, false, true}, {0, false, false}, {9 * time.Second, false, false},
		{time.Second, true, false}, {0, false, true}, {-time.Hour, false, false}, {2 * time.Hour, true, false},
		{0, true, false}, {0, false, true},
	} {
		now = now.Add(want.after)
		if ok, first := p.take("a", now); ok != want.ok || first != want.first {
			t.Errorf("%d: %t, %t", i, ok, first)
		}
	}
	if ok, _ := p.take("b", now); !ok {
		t.Error("another key has none")
	}
}

// Keys that anybody can make are bounded, and those that are not in use make room.
func TestPaceForgets(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	p := pace{burst: 1, every: time.Minute}
	for i := range maxBuckets {
		if ok, _ := p.take(fmt.Sprint(i), now); !ok {
			t.Fatalf("key %d has none", i)
		}
	}
	if ok, _ := p.take("another", now); ok || len(p.buckets) > maxBuckets {
		t.Errorf("%d keys", len(p.buckets))
	}
	now = now.Add(time.Hour)
	if ok, _ := p.take("another", now); !ok || len(p.buckets) != 1 {
		t.Errorf("%d keys an hour later", len(p.buckets))
	}
}
