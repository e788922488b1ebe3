package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// task is due work: a background fetch of a subject, or where host is set the probe of that host.
type task struct {
	*track
	about trust.Subject
	host  *host
}

// dueNow returns the probes and background fetches to start now: of each host the subjects that are
// due the longest, as many as the limits allow. Of those not known to be signed, every other one is
// of a running image, so that neither these nor other names wait for all of the others. Of a down
// host it returns only the probe and, at most every 30 s, one trial fetch: preferably of a subject
// known to be signed, since a Pod can name any other, and of these for the namespaces in rotation,
// of each the subject due the longest.
//
// It looks at all entries, once each, but only where it may return a fetch: not while the limits
// are reached, nor while every host is down and no trial is due.
func (t *track) dueNow() []task {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	due, fetchable := t.probesDue(now)
	if !fetchable {
		return due
	}
	fetches, trials := map[*host]*dueFetches{}, map[*host]*candidate{}
	for about, e := range t.entries {
		at, h := t.feed.dueAt(e, t.interval), t.hostOf(about)
		switch {
		case e.flight != nil:
		case h.down != nil:
			if h.tryable(now) {
				one := trials[h]
				if one == nil {
					one = &candidate{}
					trials[h] = one
				}
				one.offer(candidate{about, e.share, at, h.triedFor[e.share], snapshot.known(t.key(about), now)})
			}
		case at.After(now):
		default:
			of := fetches[h]
			if of == nil {
				of = t.newDueFetches(h)
				fetches[h] = of
			}
			switch {
			case snapshot.known(t.key(about), now):
				of.known.offer(about, at)
			case t.retained[about]:
				of.retained.offer(about, at)
			default:
				of.others.offer(about, at)
			}
		}
	}
	for h, one := range trials {
		h.recordTrial(one.share, now)
		due = append(due, task{track: t, about: one.about})
	}
	known, others := maxBackgroundOfRoot-t.known.background, maxBackgroundOfRoot-t.others.background
	for _, of := range fetches {
		first, second := of.known.subjects, alternate(of.retained.subjects, of.others.subjects)
		first, second = first[:min(len(first), known)], second[:min(len(second), of.others.size, others)]
		known, others = known-len(first), others-len(second)
		for _, about := range slices.Concat(first, second) {
			due = append(due, task{track: t, about: about})
		}
	}
	return due
}

// dueFetches are the background fetches to start from one host: of subjects that are known to be
// signed, of others that running images need, and of the rest.
type dueFetches struct{ known, retained, others longestDue }

func (t *track) newDueFetches(h *host) *dueFetches {
	known, others := t.known.freeBackground(h), t.others.freeBackground(h)
	return &dueFetches{
		known: longestDue{size: known}, retained: longestDue{size: others}, others: longestDue{size: others},
	}
}

// alternate returns the elements of both, each time one of each.
func alternate(a, b []trust.Subject) (all []trust.Subject) {
	for len(a) > 0 && len(b) > 0 {
		all = append(all, a[0], b[0])
		a, b = a[1:], b[1:]
	}
	return slices.Concat(all, a, b)
}

// probesDue returns the probes to start now. It also reports whether a subject of any host may be
// fetched; the lock is held.
func (t *track) probesDue(now time.Time) (due []task, fetchable bool) {
	for _, h := range t.hosts {
		if h.probeable(now) && !h.probe.due.After(now) && (t.isServer(h) || h.probed()) &&
			t.mayProbe(h, trust.BackgroundShare) {
			due = append(due, task{track: t, host: h})
		}
		free := t.known.freeBackground(h) > 0 || t.others.freeBackground(h) > 0
		fetchable = fetchable || h.tryable(now) || h.down == nil && free
	}
	return due, fetchable
}

// longestDue keeps the subjects that are due the longest, at most size of them.
type longestDue struct {
	size     int
	subjects []trust.Subject
	since    []time.Time
}

// offer adds a subject, and drops the last one where there are too many.
func (l *longestDue) offer(about trust.Subject, since time.Time) {
	at := len(l.subjects)
	for at > 0 && since.Before(l.since[at-1]) {
		at--
	}
	if at >= l.size {
		return
	}
	l.subjects, l.since = slices.Insert(l.subjects, at, about), slices.Insert(l.since, at, since)
	n := min(len(l.subjects), l.size)
	l.subjects, l.since = l.subjects[:n], l.since[:n]
}

// candidate is a subject that may be fetched from a host although that is down.
type candidate struct {
	about trust.Subject
	share string    // of the last request for it
	due   time.Time // since when
	tried time.Time // the last trial for the share; zero: there was none
	known bool      // to be signed
}

// offer replaces the subject by a better one: signed before unsigned, then of the share whose last
// trial is longer ago, then due longer. The zero candidate is no subject.
func (c *candidate) offer(other candidate) {
	switch {
	case c.about == trust.Subject{}, other.known && !c.known:
		*c = other
	case other.known == c.known && cmp.Or(other.tried.Compare(c.tried), other.due.Compare(c.due)) < 0:
		*c = other
	}
}

// start starts or queues the task, or returns the flight that is doing it already. It returns nil
// where the limit of probes is reached or the queue is full: the host or subject stays due.
func (d task) start() *flight {
	t, now := d.track, d.clock.Now()
	if d.host != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if d.host.flight != nil {
			return d.host.flight
		}
		if !t.mayProbe(d.host, trust.BackgroundShare) {
			return nil
		}
		d.host.probe.due = now.Add(fetchTimeout) // the outcome sets it anew
		return t.beginProbe(d.host, trust.BackgroundShare, now)
	}
	known := t.isKnown(d.about)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(d.about, now)
	if e.flight != nil {
		return e.flight
	}
	f := t.begin(d.about, e, t.limitFor(known), trust.BackgroundShare, now, true)
	if f != nil {
		e.due = now.Add(fetchTimeout) // the outcome sets it anew
	}
	return f
}
