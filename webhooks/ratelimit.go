package webhooks

import (
	"sync"
	"time"
)

// maxBuckets is the maximum number of keys that a rateLimiter holds.
const maxBuckets = 4096

// rateLimiter holds a token bucket for each key. A bucket starts with burst tokens and gains one in
// each interval. The zero value allows nothing.
type rateLimiter struct {
	burst    float64
	interval time.Duration

	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time // when tokens was last brought up to date
	empty  bool      // allow has returned false since the last token
}

// allow takes a token from the bucket of a key, and reports whether there was one. If not, first
// says that this is the first call without a token since the last one with a token. A new key is
// not allowed, and not first, while maxBuckets others are in use.
func (l *rateLimiter) allow(key string, now time.Time) (ok, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.evict(now)
		}
		if len(l.buckets) >= maxBuckets {
			return false, false
		}
		b = &bucket{tokens: l.burst, at: now}
		if l.buckets == nil {
			l.buckets = make(map[string]*bucket)
		}
		l.buckets[key] = b
	}
	l.refill(b, now)
	if b.tokens < 1 {
		first, b.empty = !b.empty, true
		return false, first
	}
	b.tokens--
	b.empty = false
	return true, false
}

// refill adds the tokens of the time since the last refill.
func (l *rateLimiter) refill(b *bucket, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(l.burst, b.tokens+passed.Seconds()/l.interval.Seconds())
		b.at = now
	}
}

// evict deletes the keys whose buckets are full.
func (l *rateLimiter) evict(now time.Time) {
	for key, b := range l.buckets {
		if l.refill(b, now); b.tokens >= l.burst {
			delete(l.buckets, key)
		}
	}
}
