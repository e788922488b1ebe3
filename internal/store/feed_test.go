package store

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

// listing is a scripted trust root with a change feed. It records when each repository was fetched,
// by the fake clock of the bench.
type listing struct {
	*scripted
	b *bench

	mu        sync.Mutex
	published []string // the honest list
	changes   func(after trust.Cursor) (trust.Changes, error)
	asked     []time.Time
	fetched   map[string][]time.Time
}

// newListing has the repositories held, and refreshed at an interval. changes nil: an honest list.
func newListing(repositories int, interval time.Duration,
	changes func(after trust.Cursor) (trust.Changes, error)) *listing {
	l := &listing{scripted: &scripted{}, fetched: map[string][]time.Time{}, changes: changes}
	if changes == nil {
		l.changes = l.honest
	}
	signed := &fact{}
	l.fetchOf = func(_ context.Context, repository string, _ trust.Evidence) (trust.Evidence, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fetched[repository] = append(l.fetched[repository], l.b.clock.Now())
		return signed, nil
	}
	l.b = newBench(l)
	l.b.Reset("acme", interval)
	for i := range repositories {
		l.b.acme().mu.Lock()
		l.b.acme().entry(acmeKey(name(i)).Subject, l.b.clock.Now()).due = l.b.clock.Now()
		l.b.acme().mu.Unlock()
	}
	return l
}

func name(i int) string { return fmt.Sprintf("registry.example.com/acme/app-%d", i) }

func (l *listing) Changes(_ context.Context, after trust.Cursor) (trust.Changes, error) {
	l.mu.Lock()
	l.asked = append(l.asked, l.b.clock.Now())
	l.mu.Unlock()
	return l.changes(after)
}

func (l *listing) honest(after trust.Cursor) (trust.Changes, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := trust.Changes{Cursor: trust.Cursor{strconv.Itoa(len(l.published))}}
	if len(after) > 0 {
		n, err := strconv.Atoi(after[0])
		if err != nil {
			return c, err
		}
		c.Repositories = l.published[n:]
	}
	return c, nil
}

// turn does the work of one tick of Run, and waits for its end.
func (l *listing) turn(t testing.TB) {
	t.Helper()
	if f := l.b.acme().startReading(); f != nil {
		l.b.acme().read(t.Context(), f)
	}
	for due := l.b.acme().dueNow(); len(due) > 0; due = l.b.acme().dueNow() {
		for _, k := range due {
			<-k.start().done
		}
	}
}

// pass advances the clock in steps of a fraction of the interval.
func (l *listing) pass(t testing.TB, d time.Duration) {
	t.Helper()
	l.b.acme().mu.Lock()
	step := l.b.acme().interval / 50
	l.b.acme().mu.Unlock()
	for end := l.b.clock.Now().Add(d); l.b.clock.Now().Before(end); {
		l.turn(t)
		l.b.clock.Step(step)
	}
}

func (l *listing) requests() (fetches, asked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, times := range l.fetched {
		fetches += len(times)
	}
	return fetches, len(l.asked)
}

// spent returns the number of requests in the given time.
func (l *listing) spent(t testing.TB, d time.Duration) (fetches, asked int) {
	t.Helper()
	fetchesBefore, askedBefore := l.requests()
	l.pass(t, d)
	fetches, asked = l.requests()
	return fetches - fetchesBefore, asked - askedBefore
}

func noFeed(trust.Cursor) (trust.Changes, error) {
	return trust.Changes{}, trust.NewFault(v1alpha1.ReasonUnexpectedAnswer, "404")
}

// silent is a feed that advances and never names a repository.
func silent(trust.Cursor) (trust.Changes, error) {
	return trust.Changes{Cursor: trust.Cursor{"1"}}, nil
}

func everything(repositories int) func(trust.Cursor) (trust.Changes, error) {
	all := make([]string, repositories)
	for i := range all {
		all[i] = name(i)
	}
	return func(trust.Cursor) (trust.Changes, error) {
		return trust.Changes{Repositories: all, Cursor: trust.Cursor{"1"}}, nil
	}
}

// perInterval is what a thousand repositories cost at one publication an interval, once the start
// is over.
func perInterval(t testing.TB, changes func(trust.Cursor) (trust.Changes, error)) float64 {
	t.Helper()
	const intervals = 12
	l := newListing(1000, 5*time.Minute, changes)
	l.pass(t, time.Hour)
	total := 0
	for i := range intervals {
		l.mu.Lock()
		l.published = append(l.published, name(i))
		l.mu.Unlock()
		fetches, asked := l.spent(t, 5*time.Minute)
		total += fetches + asked
	}
	return float64(total) / intervals
}

func TestFeedSavesRequests(t *testing.T) {
	without, with := perInterval(t, noFeed), perInterval(t, nil)
	t.Logf("requests an interval for 1,000 repositories and one publication: %.1f without the feed, %.1f with it",
		without, with)
	if without < 1000 {
		t.Errorf("%.1f requests an interval without the feed, want one for each repository at least", without)
	}
	if with > without/8 || with < 1000.0/12 {
		t.Errorf(
			"%.1f requests an interval with the feed, want at least a twelfth of the repositories and at most an "+
				"eighth of %.1f", with, without)
	}
}

func BenchmarkRefreshOf1000(b *testing.B) {
	for name, changes := range map[string]func(trust.Cursor) (trust.Changes, error){"feed": nil, "polling": noFeed} {
		b.Run(name, func(b *testing.B) {
			sum, n := 0.0, 0
			for b.Loop() {
				sum += perInterval(b, changes)
				n++
			}
			b.ReportMetric(sum/float64(n), "requests/op")
		})
	}
}

// A published repository is fetched as soon as by polling, whether the feed has the publication
// before or after the last fetch.
func TestFeedNamesWhatWasPublished(t *testing.T) {
	const interval = 5 * time.Minute
	l := newListing(100, interval, nil)
	l.pass(t, 30*time.Minute)
	total, start := 0, l.b.clock.Now()
	for i := range 20 {
		l.pass(t, time.Duration(i)*7*time.Second)
		at := l.b.clock.Now()
		l.mu.Lock()
		l.published = append(l.published, name(i), "registry.example.com/acme/of-others")
		l.mu.Unlock()
		fetches, _ := l.spent(t, interval+interval/20)
		times := l.fetched[name(i)]
		if last := times[len(times)-1]; last.Before(at) {
			t.Errorf("%s was published to at %s and fetched last at %s", name(i), at, last)
		}
		total += fetches
	}
	if most := 20 + 100*int(l.b.clock.Since(start)/(8*interval)); total > most {
		t.Errorf("%d fetches for 20 publications, want %d at most", total, most)
	}
	if _, ok := l.fetched["registry.example.com/acme/of-others"]; ok {
		t.Error("a repository that nobody asked for was fetched")
	}
}

// A missing feed is requested again once an hour, and at once when the trust root is published
// again.
func TestFeedThatIsNotThere(t *testing.T) {
	l := newListing(10, 30*time.Second, noFeed)
	fetches, asked := l.spent(t, 24*time.Hour)
	if asked < 24 || asked > 24*5/4+8 {
		t.Errorf("asked for %d times in a day, want once an hour", asked)
	}
	if fetches < 10*24*120 {
		t.Errorf("%d fetches, want all to be polled", fetches)
	}
	l.b.Reset("acme", time.Minute)
	if _, asked := l.spent(t, time.Minute); asked == 0 {
		t.Error("not asked for when the trust root was published anew")
	}
}

// When a working feed fails, the tracker polls every repository within an interval and a quarter.
func TestFeedThatFails(t *testing.T) {
	const interval = 5 * time.Minute
	l := newListing(100, interval, silent)
	l.pass(t, 20*time.Minute)
	if fetches, _ := l.spent(t, interval); fetches > 50 {
		t.Fatalf("%d fetches in an interval: the list is not gone by", fetches)
	}
	l.changes = noFeed
	at := l.b.clock.Now()
	l.pass(t, interval*5/4+interval/20)
	for repository, times := range l.fetched {
		if times[len(times)-1].Before(at) {
			t.Errorf("%s was last fetched at %s, want after %s, when the list was gone", repository,
				times[len(times)-1], at)
		}
	}
	if fetches, _ := l.spent(t, 10*interval); fetches < 1000 {
		t.Errorf("%d fetches of 100 repositories in 10 intervals, want all polled", fetches)
	}
}

// Every repository is fetched once after the first cursor was read, because evidence fetched
// earlier may lack changes from before the cursor. The same happens when the cursor is lost.
func TestFeedGap(t *testing.T) {
	const interval = 5 * time.Minute
	l := newListing(100, interval, nil)
	since := func(what string) {
		t.Helper()
		at := l.b.clock.Now()
		l.pass(t, 2*interval)
		for repository, times := range l.fetched {
			if times[len(times)-1].Before(at) {
				t.Errorf("%s was not fetched after %s", repository, what)
			}
		}
		if fetches, _ := l.spent(t, 12*interval); fetches > 300 {
			t.Errorf("%d fetches in 12 later intervals: the list is not gone by", fetches)
		}
	}
	l.pass(t, interval/20) // all are fetched, and the place is taken
	since("the start")
	l.changes = func(trust.Cursor) (trust.Changes, error) {
		l.changes = l.honest
		return trust.Changes{}, nil
	}
	since("the list had started anew")
	l.b.Reset("acme", interval)
	since("the trust root was published anew")
}

// A repository is polled for an interval before its evidence expires, whatever the feed says.
func TestFeedDoesNotHoldUpExpiry(t *testing.T) {
	const interval = 5 * time.Minute
	l := newListing(20, interval, silent)
	expires := l.b.clock.Now().Add(40 * time.Minute)
	signed := &fact{expires: expires}
	fetch := l.fetchOf
	l.fetchOf = func(ctx context.Context, repository string, held trust.Evidence) (trust.Evidence, error) {
		_, err := fetch(ctx, repository, held)
		return signed, err
	}
	l.pass(t, 2*interval)
	if fetches, _ := l.spent(t, 3*interval); fetches > 20 {
		t.Fatalf("%d fetches: the list is not gone by", fetches)
	}
	l.pass(t, expires.Sub(l.b.clock.Now())+interval)
	for repository, times := range l.fetched {
		ahead, past := 0, 0
		for _, at := range times {
			switch before := expires.Sub(at); {
			case before > 0 && before <= interval+interval/20:
				ahead++
			case before <= 0:
				past++
			}
		}
		if ahead == 0 || past == 0 {
			t.Errorf(
				"%s was refreshed %d times in the interval before its expiry and %d times in that after, want both",
				repository, ahead, past)
		}
	}
}

// A repository that the feed names while its fetch is in flight is fetched again: the fetch may
// have begun before the change.
func TestFeedNamesWhatIsBeingFetched(t *testing.T) {
	l := newListing(2, 5*time.Minute, nil)
	l.pass(t, 20*time.Minute)
	release, fetch := make(chan struct{}), l.fetchOf
	before, _ := l.requests()
	l.fetchOf = func(ctx context.Context, repository string, held trust.Evidence) (trust.Evidence, error) {
		held, err := fetch(ctx, repository, held)
		<-release
		return held, err
	}
	k := acmeKey(name(0))
	flight := l.b.fetching(k)
	eventually(t, "the fetch", func() bool { fetches, _ := l.requests(); return fetches > before })
	l.b.clock.Step(time.Second)
	l.b.acme().mu.Lock()
	f := l.b.acme().feed
	l.b.acme().mu.Unlock()
	l.b.acme().recordFeed(f, l.b.clock.Now(), trust.Changes{
		Repositories: []string{k.Repository}, Cursor: trust.Cursor{"1"},
	},
		nil)
	close(release)
	<-flight.done
	l.b.clock.Step(time.Second)
	if due := l.b.acme().dueNow(); len(due) != 1 || due[0].about != k.Subject {
		t.Errorf("due are %v, want %v", due, k)
	}
}

// A request for a repository is served at once, whatever the feed says.
func TestFeedHoldsUpNobody(t *testing.T) {
	l := newListing(10, 5*time.Minute, silent)
	l.pass(t, 20*time.Minute)
	k := acmeKey(name(0))
	l.b.acme().mu.Lock()
	l.b.acme().entries[k.Subject].due = l.b.clock.Now()
	l.b.acme().mu.Unlock()
	if due := l.b.acme().dueNow(); len(due) != 1 || due[0].about != k.Subject {
		t.Errorf("due are %v, want %v", due, k)
	}
	l.b.clock.Step(time.Second)
	image := imageref.Ref{Host: "registry.example.com", Path: "acme/app-1"}
	if err := l.b.Renew(t.Context(), key(image), l.b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if times := l.fetched[name(1)]; !times[len(times)-1].Equal(l.b.clock.Now()) {
		t.Errorf("renewed at %s, want now", times[len(times)-1])
	}
}

// The feed of a down server is not read, nor that of a server with a single repository.
func TestFeedIsNotAskedFor(t *testing.T) {
	l := newListing(10, 30*time.Second, nil)
	l.probe = trust.NewFault(v1alpha1.ReasonUnreachable, "down")
	if _, asked := l.spent(t, time.Hour); asked > 0 {
		t.Errorf("a server that is down was asked %d times", asked)
	}
	l.probe = nil
	if _, asked := l.spent(t, time.Minute); asked == 0 {
		t.Error("a server that is up again was not asked")
	}
	if _, asked := newListing(1, 30*time.Second, nil).spent(t, time.Hour); asked > 0 {
		t.Errorf("the list was asked for %d times for the sake of one repository", asked)
	}
}

// A reading that does not name a repository counts as its refresh in the status. The alert on stale
// evidence depends on it.
func TestFeedShowsInStatus(t *testing.T) {
	const interval = 30 * time.Second
	for name, list := range map[string]func(trust.Cursor) (trust.Changes, error){"feed": nil, "polling": noFeed} {
		t.Run(name, func(t *testing.T) {
			l := newListing(20, interval, list)
			l.pass(t, 10*interval)
			for range 20 {
				l.pass(t, interval/10)
				if age := l.b.clock.Since(l.b.Status("acme").Oldest); age > interval*5/4 {
					t.Errorf("the oldest refresh is %s old", age)
				}
			}
		})
	}
}
