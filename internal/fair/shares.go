package fair

import (
	"context"
	"slices"
	"sync"
)

// Shares are the shares that want one piece of work: those of all requests that wait for it. More
// may join while it waits for a Semaphore. It is safe for concurrent use. Create it with NewShares.
type Shares struct {
	mu    sync.Mutex
	names []string
	calls map[*func(string)]bool // for each share that joins
}

// NewShares returns the shares that want some work at first.
func NewShares(names ...string) *Shares {
	return &Shares{names: slices.Clone(names), calls: map[*func(string)]bool{}}
}

// Add adds a share.
func (s *Shares) Add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.names, name) {
		return
	}
	s.names = append(s.names, name)
	for call := range s.calls {
		(*call)(name)
	}
}

// each calls a function for each share, and until stop for each that joins. The function must not
// use s.
func (s *Shares) each(call func(name string)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[&call] = true
	for _, name := range s.names {
		call(name)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.calls, &call)
	}
}

// Alone returns a context that ends when another share than name wants the work.
func (s *Shares) Alone(ctx context.Context, name string) (alone context.Context, end func()) {
	alone, cancel := context.WithCancel(ctx)
	stop := s.each(func(other string) {
		if other != name {
			cancel()
		}
	})
	return alone, func() {
		stop()
		cancel()
	}
}
