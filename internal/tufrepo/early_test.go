package tufrepo_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// gated is a Getter that calls a function before it sends a request. The function may wait, or give
// another answer.
type gated struct {
	tufrepo.Getter
	before func(ctx context.Context, file string) []byte
}

// Get implements tufrepo.Getter.
func (g *gated) Get(ctx context.Context, file string, limit int64) ([]byte, error) {
	if raw := g.before(ctx, file); raw != nil {
		return raw, nil
	}
	return g.Getter.Get(ctx, file, limit)
}

// gatedClient is client with a gated Getter.
func (r *repository) gatedClient(before func(ctx context.Context, file string) []byte) *tufrepo.Client {
	r.t.Helper()
	c, err := tufrepo.New(tufrepo.Config{
		Name: "https://tuf.example.com", Root: r.served("/1.root.json"), Clock: func() time.Time { return today },
	}, &gated{Getter: r.getter(), before: before})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func update(t *testing.T, c *tufrepo.Client, held *tufrepo.State, paths ...string) *tufrepo.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s, err := c.Update(ctx, held, paths, nil)
	if err != nil {
		t.Fatalf("Update(%v): %v", paths, err)
	}
	return s
}

// TestUpdateTakesThreeRoundTrips checks which files are requested at once at first sight: no answer
// comes before all of them are requested. That must not depend on the levels of delegations.
func TestUpdateTakesThreeRoundTrips(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.delegate(metadata.TARGETS, "qa", "*")
	r.delegate("qa", "qa-team", "*")
	for _, role := range []string{"ci", "qa-team"} {
		r.sign(role, "app", []byte("x"))
	}
	r.publish(metadata.TARGETS, "ci", "qa", "qa-team")
	trips := [][]string{
		{"/2.root.json", "/timestamp.json"}, {"/2.snapshot.json"},
		{"/2.targets.json", "/1.ci.json", "/1.qa.json", "/1.qa-team.json"},
	}
	together := map[string]*sync.WaitGroup{}
	var seen sync.Map
	for _, trip := range trips {
		var all sync.WaitGroup
		all.Add(len(trip))
		for _, file := range trip {
			together[file] = &all
		}
	}
	c := r.gatedClient(func(ctx context.Context, file string) []byte {
		all, requested := together[file], make(chan struct{})
		if _, again := seen.LoadOrStore(file, true); again || all == nil {
			t.Errorf("got a request for %s, want each file once", file)
			return nil
		}
		all.Done()
		go func() {
			all.Wait()
			close(requested)
		}()
		select {
		case <-requested:
		case <-ctx.Done():
			t.Errorf("%s waits for a file that is not requested beside it", file)
		}
		return nil
	})
	s := update(t, c, nil, "app")
	wantRoles(t, s, "app", "ci", "qa-team")
	want := slices.Sorted(slices.Values(slices.Concat(trips...)))
	if got := r.requests(); !slices.Equal(got, want) {
		t.Errorf("got requests %q, want each file once: %q", got, want)
	}
}

// TestUpdateOfAKnownRepository checks that what is held costs no further request.
func TestUpdateOfAKnownRepository(t *testing.T) {
	r, _ := signedRepository(t)
	c := r.client()
	s := update(t, c, nil, "app")
	r.proxy.Reset()
	if again := update(t, c, s, "app"); again != s {
		t.Error("got another State, want the held one, since nothing has changed")
	}
	if got, want := r.requests(), []string{"/3.root.json", "/timestamp.json"}; !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
	r.publish("ci")
	r.proxy.Reset()
	update(t, c, s, "app")
	if got, want := r.requests(), []string{
		"/2.ci.json", "/3.root.json", "/3.snapshot.json", "/timestamp.json",
	}; !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q: only what has changed", got, want)
	}
}

// TestUpdateOfManyDelegations checks that files are fetched early only where they are few.
func TestUpdateOfManyDelegations(t *testing.T) {
	r := newRepository(t)
	var names []string
	for i := range 9 {
		names = append(names, fmt.Sprintf("team-%d", i))
		r.delegate(metadata.TARGETS, names[i], names[i]+"/*")
	}
	r.sign("team-4", "team-4/app", []byte("x"))
	r.publish(append(names, metadata.TARGETS)...)
	s := update(t, r.client(), nil, "team-4/app")
	wantRoles(t, s, "team-4/app", "team-4")
	if got := r.requests(); slices.ContainsFunc(got, func(f string) bool {
		return strings.Contains(f, "team-") && f != "/1.team-4.json"
	}) {
		t.Errorf("got requests %q, want of the teams' files only the one that may have the path", got)
	}
}

// TestThreatTUFFilesFetchedEarly checks that a file that is fetched before it is known whether a
// delegation leads to it proves nothing by that, spoils nothing, and is not requested under a name
// that leads elsewhere.
func TestThreatTUFFilesFetchedEarly(t *testing.T) {
	r := newRepository(t)
	r.delegate(metadata.TARGETS, "ci", "*")
	r.sign("ci", "app", []byte("x"))
	r.delegate(metadata.TARGETS, "stray", "*")
	r.sign("stray", "app", []byte("x"))
	d := r.delegations(metadata.TARGETS)
	d.Roles = slices.DeleteFunc(d.Roles, func(d metadata.DelegatedRole) bool { return d.Name == "stray" })
	for _, name := range []string{"gone", "../outside", "a/../../b"} {
		r.snapshot.Signed.Meta[name+".json"] = metadata.MetaFile(1)
	}
	r.publish(metadata.TARGETS, "ci", "stray")
	s := update(t, r.client(), nil, "app")
	wantRoles(t, s, "app", "ci")
	if missing := s.Signed("app", today).Missing; len(missing) != 0 {
		t.Errorf("got %v missing, want nothing: no delegation leads to the file that is gone", missing)
	}
	want := []string{
		"/1.ci.json", "/1.gone.json", "/1.stray.json", "/2.root.json", "/2.snapshot.json", "/2.targets.json",
		"/timestamp.json",
	}
	if got := r.requests(); !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
}

// TestTimestampBesideANewRoot checks that a timestamp by the keys of the root before is fetched
// again after a new root, and only then.
func TestTimestampBesideANewRoot(t *testing.T) {
	r := newRepository(t)
	var mu sync.Mutex
	requests, answers := 0, [][]byte{r.served("/timestamp.json")} // signed by the key that is replaced
	c := r.gatedClient(func(_ context.Context, file string) []byte {
		mu.Lock()
		defer mu.Unlock()
		if file != "/timestamp.json" {
			return nil
		}
		if requests++; requests <= len(answers) {
			return answers[requests-1]
		}
		return nil
	})
	r.rotate(metadata.TIMESTAMP)
	r.publish(metadata.ROOT)
	s := refreshed(t, c, nil)
	if got := s.Versions(); got.Root != 2 || got.Timestamp != 2 || requests != 2 {
		t.Errorf("got versions %+v after %d requests for the timestamp, want 2 and 2 after two", got, requests)
	}
	requests = 0
	if _, err := c.Refresh(t.Context(), s); requests != 1 {
		t.Errorf("got %d requests (%v), want one: there is no new root", requests, err)
	} else {
		wantFault(t, err, v1alpha1.ReasonMetadataInvalid, "timestamp.json")
	}
}
