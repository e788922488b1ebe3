package store

import (
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// task is what is due: a fetch in the background, or where host is set the probe of that.
type task struct {
	*track
	about trust.Subject
	host  *host
}

// dueNow returns what is to be refreshed now and whose turn it is: what is due the longest comes
// first. Where every turn is taken it looks at nothing, and otherwise once at each subject. Of a
// host that is down only the probe is due, and now and then one subject: the one due the longest,
// of those known to be signed where there are any, since anybody can name others.
func (t *track) dueNow() []task {
	now, snapshot := t.clock.Now(), t.store.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []task
	room := t.known.free() > 0 || t.others.free() > 0
	for _, h := range t.hosts {
		if h.probeable(now) && !h.probe.due.After(now) && (h.name == t.server || h.suspect || h.down != nil) {
			due = append(due, task{track: t, host: h})
		}
		room = room || h.tryable(now)
	}
	if !room {
		return due
	}
	known, others := longestDue{size: t.known.free()}, longestDue{size: t.others.free()}
	trials := map[*host]*trial{}
	for about, e := range t.entries {
		at, h := t.feed.dueAt(e, t.interval), t.hostOf(about)
		switch {
		case e.flight != nil:
		case h.down != nil:
			if h.tryable(now) {
				one := trials[h]
				if one == nil {
					one = &trial{}
					trials[h] = one
				}
				one.offer(about, at, signed(snapshot.evidence.get(t.key(about))))
			}
		case at.After(now):
		case signed(snapshot.evidence.get(t.key(about))):
			known.offer(about, at)
		default:
			others.offer(about, at)
		}
	}
	for h, one := range trials {
		h.tried = now
		due = append(due, task{track: t, about: one.about})
	}
	for _, about := range slices.Concat(known.subjects, others.subjects) {
		due = append(due, task{track: t, about: about})
	}
	return due
}

// waiting are the subjects that are due the longest, as many as there is room for.
type longestDue struct {
	size     int
	subjects []trust.Subject
	since    []time.Time
}

func (w *longestDue) offer(about trust.Subject, since time.Time) {
	at := len(w.subjects)
	for at > 0 && since.Before(w.since[at-1]) {
		at--
	}
	if at >= w.size {
		return
	}
	w.subjects, w.since = slices.Insert(w.subjects, at, about), slices.Insert(w.since, at, since)
	n := min(len(w.subjects), w.size)
	w.subjects, w.since = w.subjects[:n], w.since[:n]
}

// trial is the subject that is fetched though its host is down.
type trial struct {
	about trust.Subject
	since time.Time
	known bool
	taken bool
}

func (t *trial) offer(about trust.Subject, since time.Time, known bool) {
	if !t.taken || known && !t.known || known == t.known && since.Before(t.since) {
		*t = trial{about: about, since: since, known: known, taken: true}
	}
}

// start starts it, or joins what is under way.
func (d task) start() *flight {
	t, now := d.track, d.clock.Now()
	if d.host != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if d.host.flight != nil {
			return d.host.flight
		}
		d.host.probe.due = now.Add(fetchTimeout) // moved on by the outcome
		return t.beginProbe(d.host, now)
	}
	known := t.signed(d.about)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entry(d.about, now)
	if e.flight != nil {
		return e.flight
	}
	e.due = now.Add(fetchTimeout) // moved on by the outcome
	return t.begin(d.about, e, t.limitFor(known), now, true)
}
