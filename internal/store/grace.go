package store

import (
	"maps"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// server is a host that is asked under a trust root.
type server struct{ root, host string }

// grace is for how long past its expiry evidence may be used; the root must exist.
func (s *Snapshot) grace(k trust.Key, h *held) time.Duration {
	r := s.roots[k.Root]
	if h.stale || !h.ended && len(s.down) > 0 && s.down[server{k.Root, r.Root.Host(k.Subject)}] {
		return r.ExpiredGrace
	}
	return 0
}

// withDown returns a snapshot that knows whether a server is down, nil where this one does.
func (s *Snapshot) withDown(at server, down bool) *Snapshot {
	if down == s.down[at] {
		return nil
	}
	next := *s
	next.down = maps.Clone(s.down)
	if next.down == nil {
		next.down = map[server]bool{}
	}
	next.down[at] = true
	if !down {
		delete(next.down, at)
	}
	return &next
}
