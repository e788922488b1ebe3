package distribution

import (
	"slices"
	"sync"
)

// headers are the values of a header, one a request.
type headers struct {
	mu     sync.Mutex
	values []string
}

func (h *headers) add(value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.values = append(h.values, value)
}

func (h *headers) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.values)
}
