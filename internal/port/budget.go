// Package port limits how much of the manager the clients of the admission port can use: a Budget
// limits memory, Conns limits connections.
//
// Anyone who reaches the port can send to it. So the package trusts nothing that a client claims,
// and each client has a limit of its own. When a limit is reached, the package evicts the request
// whose body has been arriving for longest. It never evicts a request that is being decided. A
// client is the host part of an address. The package decides only whether a request has room.
package port

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// ErrBusy says that a request has waited for memory as long as it may.
var ErrBusy = errors.New("too many requests are under way; try again")

// ErrTooSlow says that a request was evicted because its body arrived too slowly.
var ErrTooSlow = errors.New("it arrived too slowly, and other requests needed its memory; try again")

// Share is a part of the budget.
type Share struct {
	// Size is how many bytes of the share all requests together may use.
	Size int64
	// Each is how many bytes of the share the requests of one client may use.
	Each int64
	// Waiting is how many requests of one client may wait for memory of the share.
	Waiting int
}

// Limits are the bounds of a Budget. All must be positive.
type Limits struct {
	// Small is the share for requests whose body uses at most SmallUpTo bytes. Large is the share
	// for all others.
	Small, Large Share
	SmallUpTo    int64
	// Patience is how long a request may wait for memory.
	Patience time.Duration
	// Grace is how long a body may take to arrive before a waiting request can evict it.
	Grace time.Duration
}

// DefaultLimits are 64 MiB in total. Half is reserved for requests of up to 512 KiB. One client may
// use half of each share: about 1,800 small requests at once, or one of the maximum size.
func DefaultLimits() Limits {
	return Limits{
		Small:     Share{Size: 32 << 20, Each: 16 << 20, Waiting: 64},
		Large:     Share{Size: 32 << 20, Each: 16 << 20, Waiting: 8},
		SmallUpTo: 512 << 10,
		Patience:  time.Second,
		Grace:     time.Second,
	}
}

// Budget is memory that requests share. It is safe for concurrent use.
type Budget struct {
	limits Limits

	mu           sync.Mutex
	small, large share
}

// share is the state of a Share. The mutex of the budget guards it.
type share struct {
	Share
	used    int64
	clients map[string]*account
	// arriving are the requests that use this share and whose bodies are still arriving.
	arriving map[*Reservation]struct{}
	// queue are the waiting requests, in the order of their arrival.
	queue []*waiter
}

// account counts what one client uses of a share. It is deleted when the client uses nothing and
// waits for nothing.
type account struct {
	client  string
	used    int64
	waiting int
}

type waiter struct {
	account *account
	bytes   int64
	ready   chan struct{} // closed when the waiter has its memory or is refused
	refused bool          // guarded by the mutex of the budget
}

// NewBudget returns an unused budget.
func NewBudget(limits Limits) *Budget {
	newShare := func(s Share) share {
		return share{Share: s, clients: make(map[string]*account), arriving: make(map[*Reservation]struct{})}
	}
	return &Budget{limits: limits, small: newShare(limits.Small), large: newShare(limits.Large)}
}

// Reservation is the memory of one request. Only one goroutine at a time may call its methods.
type Reservation struct {
	budget *Budget
	client string
	began  time.Time
	answer http.ResponseWriter

	base int64 // reserved in the small share until End

	// The budget's mutex guards the rest.
	body    int64
	in      *share // the share that body is reserved in
	waits   bool
	evicted bool
}

// Begin reserves base bytes for a request of a client, until End. It returns ErrBusy or the error
// of ctx. While the body arrives, the budget may evict the request: it then stops the reading of
// the body through w.
func (b *Budget) Begin(ctx context.Context, client string, base int64, w http.ResponseWriter) (*Reservation, error) {
	r := &Reservation{budget: b, client: client, began: time.Now(), answer: w, base: base, in: &b.small}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.reserve(ctx, r, &b.small, base); err != nil {
		return nil, err
	}
	b.small.arriving[r] = struct{}{}
	return r, nil
}

// Client returns the client that sent the request.
func (r *Reservation) Client() string { return r.client }

// Body sets what the request reserves for its body to bytes: in the small share up to SmallUpTo
// bytes, all of it in the large share above. It returns ErrBusy, ErrTooSlow or the error of ctx;
// then the reservation stays as it was.
func (r *Reservation) Body(ctx context.Context, bytes int64) error {
	b := r.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.evicted {
		return ErrTooSlow
	}
	to, more := r.in, bytes-r.body
	if bytes > b.limits.SmallUpTo && r.in == &b.small {
		to, more = &b.large, bytes
	}
	if more > 0 {
		r.waits = true
		err := b.reserve(ctx, r, to, more)
		r.waits = false
		if err != nil {
			return err
		}
	}
	if to != r.in {
		b.release(r.in, r.client, r.body)
		delete(r.in.arriving, r)
		to.arriving[r] = struct{}{}
	} else if more < 0 {
		b.release(to, r.client, -more)
	}
	r.body, r.in = bytes, to
	return nil
}

// Arrived says that the whole body has been read: from now on the request cannot be evicted. It
// returns ErrTooSlow if the request was evicted before.
func (r *Reservation) Arrived() error {
	b := r.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(r.in.arriving, r)
	if r.evicted {
		return ErrTooSlow
	}
	return nil
}

// FreeBody releases the memory of the body. Nothing may refer to the body any more.
func (r *Reservation) FreeBody() {
	b := r.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(r.in.arriving, r)
	b.release(r.in, r.client, r.body)
	r.body = 0
}

// End releases all memory of the request.
func (r *Reservation) End() {
	r.FreeBody()
	b := r.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release(&b.small, r.client, r.base)
	r.base = 0
}

// Used returns how many bytes of each share are reserved.
func (b *Budget) Used() (small, large int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.small.used, b.large.used
}

// reserve reserves bytes of a share for a request, and waits for them if it must. The caller holds
// the mutex; reserve unlocks it while it waits.
func (b *Budget) reserve(ctx context.Context, r *Reservation, s *share, bytes int64) error {
	a := s.clients[r.client]
	if a == nil {
		a = &account{client: r.client}
		s.clients[r.client] = a
	}
	if len(s.queue) == 0 && s.fits(a, bytes) {
		s.used += bytes
		a.used += bytes
		return nil
	}
	if bytes > s.Each || a.waiting >= s.Waiting && !s.refuseLarger(a, bytes) {
		s.forget(a)
		return ErrBusy
	}
	w := &waiter{account: a, bytes: bytes, ready: make(chan struct{})}
	a.waiting++
	s.queue = append(s.queue, w)
	s.serve()
	return b.wait(ctx, s, w)
}

// wait waits until a waiter has its memory, and evicts slow requests for it.
func (b *Budget) wait(ctx context.Context, s *share, w *waiter) error {
	patience := time.NewTimer(b.limits.Patience)
	defer patience.Stop()
	retry := time.NewTicker(max(b.limits.Grace/8, time.Millisecond))
	defer retry.Stop()
	err := error(nil)
	for err == nil {
		s.evictFor(w, time.Now().Add(-b.limits.Grace))
		b.mu.Unlock()
		select {
		case <-w.ready:
			b.mu.Lock()
			return w.outcome()
		case <-retry.C:
		case <-patience.C:
			err = ErrBusy
		case <-ctx.Done():
			err = ctx.Err()
		}
		b.mu.Lock()
	}
	select {
	case <-w.ready: // it became ready before the mutex was locked again
		return w.outcome()
	default:
	}
	s.dequeue(w)
	s.forget(w.account)
	s.serve()
	return err
}

// outcome returns ErrBusy for a refused waiter, and nil for one that has its memory.
func (w *waiter) outcome() error {
	if w.refused {
		return ErrBusy
	}
	return nil
}

// release releases bytes that a client has reserved in a share.
func (b *Budget) release(s *share, client string, bytes int64) {
	if bytes == 0 {
		return
	}
	a := s.clients[client]
	s.used -= bytes
	a.used -= bytes
	s.forget(a)
	s.serve()
}

func (s *share) fits(a *account, bytes int64) bool {
	return s.used+bytes <= s.Size && a.used+bytes <= s.Each
}

// forget deletes the account of a client that uses nothing and waits for nothing.
func (s *share) forget(a *account) {
	if a.used == 0 && a.waiting == 0 {
		delete(s.clients, a.client)
	}
}

// serve gives memory to waiting requests. The client that uses least comes first, and of its
// requests the smallest: to claim megabytes costs a client nothing. If that request does not fit,
// the others wait too. A client at its own limit is skipped, so that it delays no other.
func (s *share) serve() {
	for {
		var first *waiter
		for _, w := range s.queue {
			if w.account.used+w.bytes <= s.Each && (first == nil || w.before(first)) {
				first = w
			}
		}
		if first == nil || !s.fits(first.account, first.bytes) {
			return
		}
		s.used += first.bytes
		first.account.used += first.bytes
		s.dequeue(first)
		close(first.ready)
	}
}

// before reports whether w gets its memory before other, which arrived earlier.
func (w *waiter) before(other *waiter) bool {
	return w.account.used < other.account.used || w.account == other.account && w.bytes < other.bytes
}

// refuseLarger refuses the largest waiting request of a client, if it is for more than bytes. It
// reports whether it refused one.
func (s *share) refuseLarger(a *account, bytes int64) bool {
	var largest *waiter
	for _, w := range s.queue {
		if w.account == a && w.bytes > bytes && (largest == nil || w.bytes > largest.bytes) {
			largest = w
		}
	}
	if largest == nil {
		return false
	}
	largest.refused = true
	s.dequeue(largest)
	close(largest.ready)
	return true
}

// dequeue removes a waiter from the queue.
func (s *share) dequeue(w *waiter) {
	for i := range s.queue {
		if s.queue[i] == w {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			w.account.waiting--
			return
		}
	}
}

// evictFor evicts requests whose bodies have been arriving since before a time, until a waiter will
// have its memory. It evicts requests of the client that uses most first, and of these the oldest.
// If the waiter's own client is at its limit, only requests of that client are evicted.
func (s *share) evictFor(w *waiter, before time.Time) {
	own := w.account.used+w.bytes > s.Each
	leaving := int64(0)
	for r := range s.arriving {
		if r.evicted && (!own || r.client == w.account.client) {
			leaving += r.reserved(s)
		}
	}
	need := s.used + w.bytes - s.Size
	if own {
		need = max(need, w.account.used+w.bytes-s.Each)
	}
	for leaving < need {
		victim := s.victim(w, own, before)
		if victim == nil {
			return
		}
		victim.evict()
		leaving += victim.reserved(s)
	}
}

// victim returns the request that evictFor evicts next, nil if there is none.
func (s *share) victim(w *waiter, own bool, before time.Time) *Reservation {
	var found *Reservation
	for r := range s.arriving {
		if r.evicted || r.waits || !r.began.Before(before) || own && r.client != w.account.client {
			continue
		}
		if found == nil {
			found = r
			continue
		}
		used, most := s.clients[r.client].used, s.clients[found.client].used
		if used > most || used == most && r.began.Before(found.began) {
			found = r
		}
	}
	return found
}

// reserved returns how many bytes the end of a request releases in a share.
func (r *Reservation) reserved(s *share) int64 {
	bytes := int64(0)
	if r.in == s {
		bytes += r.body
	}
	if s == &r.budget.small {
		bytes += r.base
	}
	return bytes
}

// evict stops the reading of the body. The caller holds the mutex and r is in arriving, so the body
// is still being read.
func (r *Reservation) evict() {
	r.evicted = true
	// if the deadline cannot be set, Body returns ErrTooSlow
	_ = http.NewResponseController(r.answer).SetReadDeadline(time.Now().Add(-time.Second))
}
