package webhooks

import (
	"fmt"
	"testing"
	"time"
)

func TestRateLimiter(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	l := rateLimiter{burst: 2, interval: 10 * time.Second}
	for i, want := range []struct {
		after     time.Duration
		ok, first bool
	}{
		{0, true, false}, {0, true, false}, {0, false, true}, {0, false, false}, {9 * time.Second, false, false},
		{time.Second, true, false}, {0, false, true}, {-time.Hour, false, false}, {2 * time.Hour, true, false},
		{0, true, false}, {0, false, true},
	} {
		now = now.Add(want.after)
		if ok, first := l.allow("a", now); ok != want.ok || first != want.first {
			t.Errorf("call %d: got ok %t and first %t, want %t and %t", i, ok, first, want.ok, want.first)
		}
	}
	if ok, _ := l.allow("b", now); !ok {
		t.Error("another key: got false, want true")
	}
}

// The number of keys is limited, since clients can make them up. Idle keys are evicted.
func TestRateLimiterEvicts(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	l := rateLimiter{burst: 1, interval: time.Minute}
	for i := range maxBuckets {
		if ok, _ := l.allow(fmt.Sprint(i), now); !ok {
			t.Fatalf("key %d: got false, want true", i)
		}
	}
	if ok, _ := l.allow("another", now); ok || len(l.buckets) > maxBuckets {
		t.Errorf("a key too many: got %t with %d keys, want false with %d", ok, len(l.buckets), maxBuckets)
	}
	now = now.Add(time.Hour)
	if ok, _ := l.allow("another", now); !ok || len(l.buckets) != 1 {
		t.Errorf("an hour later: got %t with %d keys, want true with 1", ok, len(l.buckets))
	}
}
