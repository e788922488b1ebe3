// Package port bounds what the clients of the admission port can take from the manager: memory by a
// Budget, connections by Conns.
//
// Whoever reaches the port can send to it. So nothing here believes what a client claims, each
// client has a share of its own, and what is full makes room at the cost of whoever has been
// sending for longest, never of a request that is being decided on. A client is the host part of
// its address. It decides nothing about a request but whether there is room for it.
package port

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// ErrBusy says that there was no room within the time that a request may wait for it.
var ErrBusy = errors.New("too many requests are under way; try again")

// ErrTooSlow says that a request gave way to others, because its body had been arriving for long.
var ErrTooSlow = errors.New("it was arriving for so long that others needed the room; try again")

// Share is a part of the budget.
type Share struct {
	// Size is what all requests together may take of it, in bytes.
	Size int64
	// Each is what the requests of one client may take of it, in bytes.
	Each int64
	// Waiting is how many requests of one client may wait for room in it.
	Waiting int
}

// Limits are the bounds of a Budget. All must be positive.
type Limits struct {
	// Small is the share of requests that have taken no more than SmallUpTo bytes, and Large that
	// of all others.
	Small, Large Share
	SmallUpTo    int64
	// Patience bounds how long a request waits for room.
	Patience time.Duration
	// Grace is how long a body may be arriving before it can be made to give way to a request that
	// waits.
	Grace time.Duration
}

// DefaultLimits are 64 MiB. Half of that is for requests of up to 512 KiB, which larger ones cannot
// take. One client has half of each share: room for about 1,800 small requests at once, or one of
// the greatest size.
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
	// arriving are the requests that take of this share while their bodies arrive.
	arriving map[*Hold]struct{}
	// queue holds those that wait, in the order in which they came.
	queue []*waiter
}

// account is what one client takes of a share. It goes when that is nothing.
type account struct {
	client  string
	used    int64
	waiting int
}

type waiter struct {
	account *account
	bytes   int64
	ready   chan struct{} // closed when it has its room, or has none
	refused bool          // guarded by the mutex of the budget
}

// NewBudget returns a budget of which nothing is taken.
func NewBudget(limits Limits) *Budget {
	make1 := func(s Share) share {
		return share{Share: s, clients: make(map[string]*account), arriving: make(map[*Hold]struct{})}
	}
	return &Budget{limits: limits, small: make1(limits.Small), large: make1(limits.Large)}
}

// Hold is what one request takes. One goroutine at a time may call its methods.
type Hold struct {
	budget *Budget
	client string
	began  time.Time
	answer http.ResponseWriter

	base int64 // of the small share, until End

	// The budget's mutex guards the rest.
	body    int64
	in      *share // where body is taken from
	waits   bool
	evicted bool
}

// Begin takes base bytes for a request of a client, until End. The error is ErrBusy, or that of
// ctx. While the body arrives, its reading may be cut off through w.
func (b *Budget) Begin(ctx context.Context, client string, base int64, w http.ResponseWriter) (*Hold, error) {
	h := &Hold{budget: b, client: client, began: time.Now(), answer: w, base: base, in: &b.small}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.take(ctx, h, &b.small, base); err != nil {
		return nil, err
	}
	b.small.arriving[h] = struct{}{}
	return h, nil
}

// Client returns the client that the request is from.
func (h *Hold) Client() string { return h.client }

// Body makes bytes what the request takes for its body: of the small share up to SmallUpTo, and
// else all of the large one. The error is ErrBusy, ErrTooSlow, or that of ctx, and then it takes
// what it took before.
func (h *Hold) Body(ctx context.Context, bytes int64) error {
	b := h.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.evicted {
		return ErrTooSlow
	}
	to, more := h.in, bytes-h.body
	if bytes > b.limits.SmallUpTo && h.in == &b.small {
		to, more = &b.large, bytes
	}
	if more > 0 {
		h.waits = true
		err := b.take(ctx, h, to, more)
		h.waits = false
		if err != nil {
			return err
		}
	}
	if to != h.in {
		b.give(h.in, h.client, h.body)
		delete(h.in.arriving, h)
		to.arriving[h] = struct{}{}
	} else if more < 0 {
		b.give(to, h.client, -more)
	}
	h.body, h.in = bytes, to
	return nil
}

// Arrived says that the whole body is there: from now on the request gives way to nobody. It
// returns ErrTooSlow where it has done so.
func (h *Hold) Arrived() error {
	b := h.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(h.in.arriving, h)
	if h.evicted {
		return ErrTooSlow
	}
	return nil
}

// Free gives back what the request takes for its body, which nothing may refer to any more.
func (h *Hold) Free() {
	b := h.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(h.in.arriving, h)
	b.give(h.in, h.client, h.body)
	h.body = 0
}

// End gives back all that the request takes.
func (h *Hold) End() {
	h.Free()
	b := h.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.give(&b.small, h.client, h.base)
	h.base = 0
}

// Used returns what is taken of both shares, in bytes.
func (b *Budget) Used() (small, large int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.small.used, b.large.used
}

// take takes bytes of a share for a request, and waits for them where it must; the mutex, which the
// caller holds, is not held then.
func (b *Budget) take(ctx context.Context, h *Hold, s *share, bytes int64) error {
	a := s.clients[h.client]
	if a == nil {
		a = &account{client: h.client}
		s.clients[h.client] = a
	}
	if len(s.queue) == 0 && s.fits(a, bytes) {
		s.used += bytes
		a.used += bytes
		return nil
	}
	if bytes > s.Each || a.waiting >= s.Waiting && !s.displace(a, bytes) {
		s.forget(a)
		return ErrBusy
	}
	w := &waiter{account: a, bytes: bytes, ready: make(chan struct{})}
	a.waiting++
	s.queue = append(s.queue, w)
	s.serve()
	return b.wait(ctx, s, w)
}

// wait waits until a waiter has its room, and has others give way.
func (b *Budget) wait(ctx context.Context, s *share, w *waiter) error {
	patience := time.NewTimer(b.limits.Patience)
	defer patience.Stop()
	look := time.NewTicker(max(b.limits.Grace/8, time.Millisecond))
	defer look.Stop()
	err := error(nil)
	for err == nil {
		s.makeRoom(w, time.Now().Add(-b.limits.Grace))
		b.mu.Unlock()
		select {
		case <-w.ready:
			b.mu.Lock()
			return w.outcome()
		case <-look.C:
		case <-patience.C:
			err = ErrBusy
		case <-ctx.Done():
			err = ctx.Err()
		}
		b.mu.Lock()
	}
	select {
	case <-w.ready: // meanwhile
		return w.outcome()
	default:
	}
	s.leave(w)
	s.forget(w.account)
	s.serve()
	return err
}

// outcome is what came of waiting.
func (w *waiter) outcome() error {
	if w.refused {
		return ErrBusy
	}
	return nil
}

// give gives bytes back.
func (b *Budget) give(s *share, client string, bytes int64) {
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

// forget drops the account of a client that takes nothing.
func (s *share) forget(a *account) {
	if a.used == 0 && a.waiting == 0 {
		delete(s.clients, a.client)
	}
}

// serve gives room to those that wait. The client that takes least is the first, and of its
// requests the one that needs least: the claim of megabytes costs nothing. Where there is no room
// for that one, the others wait too. A client that takes all it may holds up no other.
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
		s.leave(first)
		close(first.ready)
	}
}

// before says that a waiter has its room before another one that came sooner.
func (w *waiter) before(other *waiter) bool {
	return w.account.used < other.account.used || w.account == other.account && w.bytes < other.bytes
}

// displace refuses the request of a client that waits for most, where that is for more than some
// bytes.
func (s *share) displace(a *account, bytes int64) bool {
	var most *waiter
	for _, w := range s.queue {
		if w.account == a && w.bytes > bytes && (most == nil || w.bytes > most.bytes) {
			most = w
		}
	}
	if most == nil {
		return false
	}
	most.refused = true
	s.leave(most)
	close(most.ready)
	return true
}

// leave takes a waiter out of the queue.
func (s *share) leave(w *waiter) {
	for i := range s.queue {
		if s.queue[i] == w {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			w.account.waiting--
			return
		}
	}
}

// makeRoom has requests give way whose bodies have been arriving since before a time, until there
// will be room for a waiter: those of the client that takes most first, and of these the ones that
// began first. Where the waiter's client has taken all that is its own, its own.
func (s *share) makeRoom(w *waiter, before time.Time) {
	own := w.account.used+w.bytes > s.Each
	leaving := int64(0)
	for h := range s.arriving {
		if h.evicted && (!own || h.client == w.account.client) {
			leaving += h.taken(s)
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
		leaving += victim.taken(s)
	}
}

func (s *share) victim(w *waiter, own bool, before time.Time) *Hold {
	var found *Hold
	for h := range s.arriving {
		if h.evicted || h.waits || !h.began.Before(before) || own && h.client != w.account.client {
			continue
		}
		if found == nil {
			found = h
			continue
		}
		ours, best := s.clients[h.client].used, s.clients[found.client].used
		if ours > best || ours == best && h.began.Before(found.began) {
			found = h
		}
	}
	return found
}

// taken is what the end of a request gives back to a share.
func (h *Hold) taken(s *share) int64 {
	bytes := int64(0)
	if h.in == s {
		bytes += h.body
	}
	if s == &h.budget.small {
		bytes += h.base
	}
	return bytes
}

// evict cuts the reading of the body off. The mutex is held, so the request is still being read.
func (h *Hold) evict() {
	h.evicted = true
	// where it cannot, Body says ErrTooSlow
	_ = http.NewResponseController(h.answer).SetReadDeadline(time.Now().Add(-time.Second))
}
