package hint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/hint"
)

// A registry answers one thing.
type registry struct {
	digest string
	err    error
}

func (r *registry) Resolve(context.Context, string, string) (string, error) { return r.digest, r.err }

var (
	about = trust.Subject{
		Repository: "registry.example.com/acme/app", Pulled: "registry.example.com/acme/app", Tag: "v1",
	}
	start = time.Date(2026, 11, 30, 12, 34, 56, 0, time.UTC)
)

func digest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

// tags returns a Tags whose clock now moves.
func tags(r hint.Resolver, interval time.Duration) (t hint.Tags, now *time.Time) {
	at := start
	return hint.Tags{Resolver: r, Interval: interval, Now: func() time.Time { return at }}, &at
}

func fetch(t *testing.T, source hint.Tags, held trust.Evidence) *hint.Evidence {
	t.Helper()
	got, err := source.Fetch(t.Context(), about, held)
	if err != nil {
		t.Fatal(err)
	}
	answer, ok := got.(*hint.Evidence)
	if !ok {
		t.Fatalf("got %T, want an answer", got)
	}
	return answer
}

func TestAnswer(t *testing.T) {
	r := &registry{digest: digest(1)}
	source, now := tags(r, 10*time.Second)
	first := fetch(t, source, nil)
	if got := first.Hints("v1"); len(got) != 1 || got[0] != digest(1) {
		t.Errorf("got hints %q, want the registry's digest", got)
	}
	if len(first.Statements("v1", digest(1))) != 0 || first.Signed() {
		t.Error("an answer states that somebody has signed")
	}
	if want := start.Add(10 * time.Second); !first.Fresh().Equal(want) {
		t.Errorf("fresh until %s, want %s", first.Fresh(), want)
	}
	if want := start.Add(24 * time.Hour); !first.Usable().Equal(want) {
		t.Errorf("usable until %s, want %s", first.Usable(), want)
	}
	if want := start.Add(24 * time.Hour); !first.Ends().Equal(want) {
		t.Errorf("ends at %s, want %s", first.Ends(), want)
	}

	*now = start.Add(time.Minute)
	r.digest = digest(2)
	second := fetch(t, source, first)
	if got := second.Hints("v1"); got[0] != digest(2) || !second.Given().Equal(*now) {
		t.Errorf("got %q of %s, want the new digest of now", got, second.Given())
	}
}

func TestNoSuchTag(t *testing.T) {
	source, _ := tags(&registry{err: &trust.NotFound{Code: "MANIFEST_UNKNOWN"}}, time.Minute)
	none := fetch(t, source, nil)
	if len(none.Hints("v1")) != 0 {
		t.Error("a tag that does not exist has a hint")
	}
	if got := none.Rejected([]string{"ci"}, "v1", ""); len(got) != 1 ||
		!strings.Contains(got[0].Why, `no tag "v1"`) {
		t.Errorf("got %v, want that the registry has no such tag", got)
	}
	if !none.Usable().Equal(none.Fresh()) {
		t.Error("that there is no such tag stands in where the registry cannot be asked")
	}
}

// An error of an unknown kind is no reason to use an older answer.
func TestThreatUntypedErrorIsNoOutage(t *testing.T) {
	source, _ := tags(&registry{err: errors.New("something else")}, time.Minute)
	_, err := source.Fetch(t.Context(), about, nil)
	if f := trust.AsFault(err, ""); f.Unavailable() {
		t.Errorf("got the fault %v with the reason %s, want one of a server that could be queried", f, f.Reason)
	}
}

func TestFaultIsReturned(t *testing.T) {
	r := &registry{err: trust.NewFault(v1alpha1.ReasonTimeout, "no answer")}
	source, _ := tags(r, time.Minute)
	if got, err := source.Fetch(t.Context(), about, nil); got != nil || trust.AsFault(err, "").Reason != "Timeout" {
		t.Errorf("got %v, %v, want the fault", got, err)
	}
}

// With the interval 0s no older answer ever stands in.
func TestAlwaysAsked(t *testing.T) {
	source, _ := tags(&registry{digest: digest(1)}, 0)
	answer := fetch(t, source, nil)
	if !answer.Ends().Equal(start.Add(24 * time.Hour)) {
		t.Errorf("ends at %s, want a day after %s", answer.Ends(), start)
	}
	if !answer.Fresh().Equal(start) || !answer.Usable().Equal(start) {
		t.Errorf("fresh until %s, usable until %s, want neither past %s", answer.Fresh(), answer.Usable(), start)
	}
}

// TestThreatHintsAge keeps an answer in a record and reads it after restarts: its age goes on from
// when the registry gave it, and it ends.
func TestThreatHintsAge(t *testing.T) {
	source, now := tags(&registry{digest: digest(1)}, time.Minute)
	answer := fetch(t, source, nil)
	for restart := range 3 {
		data, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		*now = start.Add(time.Duration(restart+1) * 5 * time.Hour)
		if answer, err = source.Read("v1", data); err != nil {
			t.Fatal(err)
		}
		if answer.Given().After(start) || start.Sub(answer.Given()) > time.Hour {
			t.Errorf("restart %d: given at %s, want at most an hour before %s", restart, answer.Given(), start)
		}
		if want := start.Add(24 * time.Hour); answer.Usable().After(want) {
			t.Errorf("restart %d: usable until %s, want no later than %s", restart, answer.Usable(), want)
		}
	}
	future, err := source.Read("v1", []byte(`{"digest":"`+digest(1)+`","given":"2099-01-01T00:00:00Z"}`))
	if err != nil || future.Given().After(*now) {
		t.Errorf("an answer from the future counts from %s, %v, want from now", future.Given(), err)
	}
	for name, data := range map[string]string{
		"no JSON": "x", "no digest": `{"given":"2026-11-30T12:00:00Z"}`, "another algorithm": `{"digest":"sha512:00"}`,
	} {
		if got, err := source.Read("v1", []byte(data)); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestNewer(t *testing.T) {
	source, now := tags(&registry{digest: digest(1)}, time.Minute)
	older := fetch(t, source, nil)
	*now = now.Add(time.Second)
	newer := fetch(t, source, nil)
	if hint.Newer(older, newer) != newer || hint.Newer(newer, older) != newer || hint.Newer(nil, older) != older ||
		hint.Newer(older, nil) != older {
		t.Error("Newer does not return the later answer")
	}
}

func TestRecheckTakesTheInterval(t *testing.T) {
	source, _ := tags(&registry{digest: digest(1)}, time.Hour)
	answer := fetch(t, source, nil)
	shorter, _ := tags(nil, time.Second)
	if got := shorter.Recheck(answer); !got.Fresh().Equal(start.Add(time.Second)) || !got.Given().Equal(start) {
		t.Errorf("fresh until %s, given at %s", got.Fresh(), got.Given())
	}
}
