package store

import (
	"maps"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// server is a host under a trust root.
type server struct{ root, host string }

// grace returns how long past its expiry the evidence may be used.
func (s *Snapshot) grace(k trust.Key, h *cached) time.Duration {
	r := s.roots[k.Root]
	if r == nil || r.Verifier == nil {
		return 0 // no decision uses it
	}
	if h.stale || !h.ended && len(s.down) > 0 && s.down[server{k.Root, r.Verifier.Host(k.Subject)}] {
		return r.ExpiredGrace
	}
	return 0
}

// withoutDown removes the down servers of a trust root from a snapshot that is not published yet.
func (s *Snapshot) withoutDown(root string) {
	s.down = maps.Clone(s.down)
	maps.DeleteFunc(s.down, func(at server, _ bool) bool { return at.root == root })
}

// withDown returns a snapshot in which a server is down or up; nil: this one is such.
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
