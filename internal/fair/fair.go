// Package fair shares a limited number of slots among shares, such as the namespaces whose requests
// wait.
//
// Slots counts the slots in use, and leaves room: no share takes them all. Queue holds the waiting
// items, and serves shares in rotation, so that a share waits for one item of each other share,
// however many these have. Semaphore is both, for callers that block. None of them knows what a
// slot is for.
package fair

// room says how much of the slots one share may use: up to room times as many as are free.
const room = 2

// Slots counts the slots in use, by share. A share may take a slot while it uses less than twice as
// many as are free. So one share alone uses at most two thirds of them, and a newcomer finds a free
// one even if a few shares hold theirs for ever. It is not safe for concurrent use.
type Slots struct {
	size, used int
	by         map[string]int
}

// NewSlots returns size free slots.
func NewSlots(size int) *Slots { return &Slots{size: size, by: map[string]int{}} }

// Free reports whether a share may take a slot.
func (s *Slots) Free(share string) bool { return s.by[share] < room*(s.size-s.used) }

// Full reports whether no slot is free.
func (s *Slots) Full() bool { return s.used >= s.size }

// Take takes a slot for a share. The caller has checked Free.
func (s *Slots) Take(share string) {
	s.used++
	s.by[share]++
}

// Release releases a slot of a share.
func (s *Slots) Release(share string) {
	s.used--
	if s.by[share]--; s.by[share] == 0 {
		delete(s.by, share)
	}
}
