package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// A hostile feed that omits changes can delay them only by a fixed time.
func TestThreatFeedLeavesOutChanges(t *testing.T) {
	tests := map[string]struct{ interval, bound, atLeast time.Duration }{
		"shortest": {30 * time.Second, 6 * time.Minute, 4 * time.Minute},
		"default":  {5 * time.Minute, time.Hour, 45 * time.Minute},
		"long":     {30 * time.Minute, time.Hour, 45 * time.Minute},
		"longer":   {2 * time.Hour, 2 * time.Hour, 90 * time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newListing(50, tt.interval, silent)
			l.pass(t, 6*tt.bound)
			end, longest := l.b.clock.Now(), time.Duration(0)
			for _, times := range l.fetched {
				for i, at := range append(times[1:], end) {
					longest = max(longest, at.Sub(times[i]))
				}
			}
			if longest > tt.bound+tt.interval/20 {
				t.Errorf("a repository was not refreshed for %s, want %s at most", longest, tt.bound)
			}
			if longest < tt.atLeast {
				t.Errorf("no repository waited for longer than %s: the list was not gone by", longest)
			}
		})
	}
}

// No content of a feed can cause more requests than polling, except the reading of the feed itself.
func TestThreatFeedCostsNoMoreThanPolling(t *testing.T) {
	const repositories, interval, span = 50, time.Minute, 5 * time.Hour
	turns := 0
	alternate := func(all ...func(trust.Cursor) (trust.Changes, error)) func(trust.Cursor) (trust.Changes, error) {
		return func(after trust.Cursor) (trust.Changes, error) {
			turns++
			return all[turns%len(all)](after)
		}
	}
	lost := func(trust.Cursor) (trust.Changes, error) { return trust.Changes{}, nil }
	lists := map[string]func(trust.Cursor) (trust.Changes, error){
		"names everything":        everything(repositories),
		"is always lost":          lost,
		"is lost now and then":    alternate(silent, silent, lost),
		"is lost, then names all": alternate(everything(repositories), lost),
		"names all, then is lost": alternate(everything(repositories), everything(repositories), lost),
		"fails now and then":      alternate(everything(repositories), silent, noFeed),
		"is not there":            noFeed,
		"fails oddly": func(trust.Cursor) (trust.Changes, error) {
			return trust.Changes{}, errors.New("odd")
		},
		"panics": func(trust.Cursor) (trust.Changes, error) { panic("hostile") },
	}
	const most = repositories * int(span/(interval*8/10)) // what polling may take by its jitter
	for name, list := range lists {
		t.Run(name, func(t *testing.T) {
			l := newListing(repositories, interval, list)
			fetches, asked := l.spent(t, span)
			if fetches > most {
				t.Errorf("%d fetches where polling takes %d at most", fetches, most)
			}
			if asked > int(span/interval)*5/4+1 {
				t.Errorf("asked for %d times in %d intervals", asked, span/interval)
			}
			if got := l.b.Status("acme"); got.Failing > 0 || got.Server != nil {
				t.Errorf("Status = %+v, want a list that fails to be no fault of anything else", got)
			}
		})
	}
}

// A hostile feed may name any number of repositories. Only those with an earlier request are
// fetched.
func TestThreatFeedNamesMadeUpRepositories(t *testing.T) {
	names := make([]string, 1_000_000)
	for i := range names {
		names[i] = fmt.Sprintf("registry.example.com/made-up/%d", i)
	}
	l := newListing(10, 5*time.Minute, func(trust.Cursor) (trust.Changes, error) {
		return trust.Changes{Repositories: names, Cursor: trust.Cursor{"1"}}, nil
	})
	for _, asked := l.requests(); asked < 4; _, asked = l.requests() {
		if n := len(l.b.acme().entries); n != 10 {
			t.Fatalf("%d are tracked", n)
		}
		l.b.clock.Step(time.Minute)
		if f := l.b.acme().startReading(); f != nil {
			l.b.acme().read(t.Context(), f)
		}
		for _, k := range l.b.acme().dueNow() {
			<-k.start().done
		}
	}
	if len(l.fetched) != 10 || len(l.b.acme().entries) != 10 {
		t.Errorf("%d repositories were fetched and %d are tracked, want the 10 that are asked for", len(l.fetched),
			len(l.b.acme().entries))
	}
}
