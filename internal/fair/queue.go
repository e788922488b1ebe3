package fair

import (
	"container/list"
	"slices"
)

// Queue holds waiting items. Each belongs to a share, and within it to a lane, such as the host
// that it waits for. Shares are served in rotation, the lanes of a share too, and the items of a
// lane in order of arrival. It is not safe for concurrent use. Create it with NewQueue.
type Queue[L comparable, T any] struct {
	most, waiting int
	shares        map[string]*share[L]
	rotation      []*share[L] // that have items; the next first
}

// Ticket is the position of one item in a Queue.
type Ticket[L comparable, T any] struct {
	Value   T
	share   *share[L]
	lane    *lane[L]
	element *list.Element // nil: it no longer waits
}

type share[L comparable] struct {
	name     string
	waiting  int
	lanes    map[L]*lane[L]
	rotation []*lane[L] // the next first
}

type lane[L comparable] struct {
	key   L
	items *list.List // of tickets, in order of arrival
}

// NewQueue returns an empty queue of at most so many items; 0: without a limit.
func NewQueue[L comparable, T any](most int) *Queue[L, T] {
	return &Queue[L, T]{most: most, shares: map[string]*share[L]{}}
}

// Len returns the number of waiting items.
func (q *Queue[L, T]) Len() int { return q.waiting }

// Push adds an item. If the queue is full, it evicts the newest item of the share that has the
// most, provided that the new item's share has at least two fewer. Otherwise it compares the lanes
// of the new item's own share in the same way. If neither holds, the item is not added, and the
// ticket is nil.
func (q *Queue[L, T]) Push(name string, key L, value T) (ticket, evicted *Ticket[L, T]) {
	if q.most > 0 && q.waiting >= q.most {
		if evicted = q.victim(name, key); evicted == nil {
			return nil, nil
		}
		q.Remove(evicted)
	}
	s := q.shares[name]
	if s == nil {
		s = &share[L]{name: name, lanes: map[L]*lane[L]{}}
		q.shares[name] = s
		q.rotation = append(q.rotation, s)
	}
	l := s.lanes[key]
	if l == nil {
		l = &lane[L]{key: key, items: list.New()}
		s.lanes[key] = l
		s.rotation = append(s.rotation, l)
	}
	ticket = &Ticket[L, T]{Value: value, share: s, lane: l}
	ticket.element = l.items.PushBack(ticket)
	s.waiting++
	q.waiting++
	return ticket, evicted
}

// victim returns the item that a new one replaces; nil: none.
func (q *Queue[L, T]) victim(name string, key L) *Ticket[L, T] {
	own, largest := q.shares[name], q.rotation[0]
	for _, s := range q.rotation {
		if s.waiting > largest.waiting {
			largest = s
		}
	}
	has := 0
	if own != nil {
		has = own.waiting
	}
	if has+1 < largest.waiting {
		return newest[L, T](largest.largest())
	}
	if own == nil {
		return nil
	}
	has = 0
	if l := own.lanes[key]; l != nil {
		has = l.items.Len()
	}
	if l := own.largest(); has+1 < l.items.Len() {
		return newest[L, T](l)
	}
	return nil
}

// largest returns the lane with the most items.
func (s *share[L]) largest() *lane[L] {
	return slices.MaxFunc(s.rotation, func(a, b *lane[L]) int { return a.items.Len() - b.items.Len() })
}

func newest[L comparable, T any](l *lane[L]) *Ticket[L, T] {
	return ticketOf[L, T](l.items.Back())
}

func ticketOf[L comparable, T any](element *list.Element) *Ticket[L, T] {
	return element.Value.(*Ticket[L, T]) //nolint:errcheck // the lists hold nothing else
}

// Remove removes an item that may still wait. It reports whether it did.
func (q *Queue[L, T]) Remove(t *Ticket[L, T]) bool {
	if t.element == nil {
		return false
	}
	s, l := t.share, t.lane
	l.items.Remove(t.element)
	t.element = nil
	q.waiting--
	if l.items.Len() == 0 {
		delete(s.lanes, l.key)
		s.rotation = slices.DeleteFunc(s.rotation, func(other *lane[L]) bool { return other == l })
	}
	if s.waiting--; s.waiting == 0 {
		delete(q.shares, s.name)
		q.rotation = slices.DeleteFunc(q.rotation, func(other *share[L]) bool { return other == s })
	}
	return true
}

// Next removes and returns the item to serve next, among the shares and lanes for which eligible
// holds; nil: there is none. A share that is passed over keeps its position.
func (q *Queue[L, T]) Next(eligible func(share string, lane L) bool) (ticket *Ticket[L, T], of string) {
	for i, s := range q.rotation {
		for j, l := range s.rotation {
			if !eligible(s.name, l.key) {
				continue
			}
			q.rotation = append(slices.Delete(q.rotation, i, i+1), s)
			s.rotation = append(slices.Delete(s.rotation, j, j+1), l)
			ticket = ticketOf[L, T](l.items.Front())
			q.Remove(ticket)
			return ticket, s.name
		}
	}
	return nil, ""
}
