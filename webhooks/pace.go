package webhooks

import (
	"sync"
	"time"
)

// maxBuckets bounds how many keys a pace knows at once.
const maxBuckets = 4096

// pace is a token bucket for each key: so many at once, and one more each interval. The zero value
// lets nothing through.
type pace struct {
	burst float64
	every time.Duration

	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
	// told says that it was said that there are no more, since there last was one.
	told bool
}

// take takes a token of a key. Where there is none, first says that this is the first time since
// there was one. Where too many keys are in use for a new one, it has none.
func (p *pace) take(key string, now time.Time) (ok, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[key]
	if b == nil {
		if len(p.buckets) >= maxBuckets {
			p.forget(now)
		}
		if len(p.buckets) >= maxBuckets {
			return false, false
		}
		b = &bucket{tokens: p.burst, at: now}
		if p.buckets == nil {
			p.buckets = make(map[string]*bucket)
		}
		p.buckets[key] = b
	}
	p.fill(b, now)
	if b.tokens < 1 {
		first, b.told = !b.told, true
		return false, first
	}
	b.tokens--
	b.told = false
	return true, false
}

// fill adds what has come together since.
func (p *pace) fill(b *bucket, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(p.burst, b.tokens+passed.Seconds()/p.every.Seconds())
		b.at = now
	}
}

// forget drops the keys that have all their tokens.
func (p *pace) forget(now time.Time) {
	for key, b := range p.buckets {
		if p.fill(b, now); b.tokens >= p.burst {
			delete(p.buckets, key)
		}
	}
}
