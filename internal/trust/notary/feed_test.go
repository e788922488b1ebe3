package notary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// feedServer serves the change feed as a server does that stores its records in memory.
type feedServer struct {
	httpGetter
	records  []record
	answer   func() ([]byte, error) // overrides the records
	requests int
}

func (s *feedServer) GetCatalog(_ context.Context, path string, query url.Values, _ int64) ([]byte, error) {
	s.requests++
	if path != "/v2/_trust/changefeed" {
		return nil, fmt.Errorf("%s: %w", path, trust.ErrNotFound)
	}
	if s.answer != nil {
		return s.answer()
	}
	most, err := strconv.Atoi(query.Get("records"))
	if err != nil {
		return nil, err
	}
	after := query.Get("change_id")
	from := slices.IndexFunc(s.records, func(r record) bool { return r.ID == after }) + 1
	switch {
	case after == "-1":
		from = max(0, len(s.records)-most)
	case from == 0 && after != "0":
		from = len(s.records)
	}
	return json.Marshal(map[string]any{"records": s.records[from:min(len(s.records), from+most)]})
}

// publish appends one publication for each repository.
func (s *feedServer) publish(paths ...string) {
	for _, p := range paths {
		n := len(s.records) + 1
		s.records = append(s.records, record{
			ID: strconv.Itoa(n), GUN: "registry.example.com/" + p, Version: int64(n), Category: "update",
			SHA256: strings.Repeat("0", 60) + fmt.Sprintf("%04d", n),
		})
	}
}

func newFeed(t testing.TB, s *feedServer) *Root {
	t.Helper()
	r, err := New(Config{Name: "acme", RootKeyIDs: []string{strings.Repeat("a", 64)}}, s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRead(t testing.TB, r *Root, after trust.Cursor) trust.Changes {
	t.Helper()
	c, err := r.Changes(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFeed(t *testing.T) {
	s := &feedServer{}
	s.publish("acme/a")
	r := newFeed(t, s)
	first := mustRead(t, r, nil)
	if len(first.Repositories) > 0 {
		t.Errorf("the newest records: got %v, want no repositories", first.Repositories)
	}
	follow := func(what string, want ...string) {
		t.Helper()
		for i := range want {
			want[i] = "registry.example.com/" + want[i]
		}
		next := mustRead(t, r, first.Cursor)
		if diff := cmp.Diff(want, next.Repositories); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if next.Cursor == nil {
			t.Fatalf("%s: got no cursor", what)
		}
		if len(next.Cursor) > feedWindow+1 {
			t.Errorf("%s: got a cursor of %d records", what, len(next.Cursor)-1)
		}
		first = next
	}
	follow("nothing")
	s.publish("acme/b", "acme/a", "acme/b")
	follow("three publications to two repositories", "acme/a", "acme/b")
	follow("nothing again")
	for i := range 5 * feedWindow {
		s.publish(fmt.Sprintf("acme/c%d", i))
		follow("one after the other", fmt.Sprintf("acme/c%d", i))
	}
	s.publish(slices.Repeat([]string{"acme/d"}, feedPage-feedWindow-1)...)
	follow("as many as a page holds", "acme/d")
	s.publish("Acme/Upper", "acme/../b", "acme//f", "acme/e")
	follow("names that are none of ours", "acme/e")

	// A record whose ID was assigned early and that was committed late.
	at := len(s.records) - 3
	late := record{ID: "late-1", GUN: "registry.example.com/acme/late", Version: 1}
	s.records = slices.Insert(s.records, at, late)
	follow("a record that came late", "acme/late")
	if s.requests != 5*feedWindow+7 {
		t.Errorf("got %d requests, want one for each reading", s.requests)
	}
}

// A cursor is a position in one feed. If the feed was reset or has too many new records, there is
// no cursor, and never a wrong one.
func TestFeedWithoutCursor(t *testing.T) {
	tests := map[string]func(s *feedServer){
		"emptied":                func(s *feedServer) { s.records = nil },
		"reset":                  func(s *feedServer) { s.records = nil; s.publish("acme/a", "acme/b") },
		"restored from a backup": func(s *feedServer) { s.records = s.records[:38] },
		"restored, then used": func(s *feedServer) {
			s.records = s.records[:38]
			s.publish("acme/x", "acme/y", "acme/z")
		},
		"reset, with as many records": func(s *feedServer) { changed(s.records) },
		"the last is another":         func(s *feedServer) { changed(s.records[39:]) },
		"reversed":                    func(s *feedServer) { slices.Reverse(s.records) },
		"more than a page": func(s *feedServer) {
			s.publish(slices.Repeat([]string{"acme/a"}, feedPage-feedWindow)...)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := &feedServer{}
			s.publish(slices.Repeat([]string{"acme/a"}, 40)...)
			r := newFeed(t, s)
			first := mustRead(t, r, nil)
			if mustRead(t, r, first.Cursor).Cursor == nil {
				t.Fatal("got no cursor before anything has changed")
			}
			change(s)
			if got := mustRead(t, r, first.Cursor); got.Cursor != nil {
				t.Errorf("got %v, want no cursor", got)
			}
		})
	}
}

func changed(records []record) {
	for i := range records {
		records[i].SHA256 = strings.Repeat("f", 64)
	}
}

// The feed of a server is bounded, and an invalid one is a fault.
func TestThreatFeedMakesNoSense(t *testing.T) {
	body := func(text string) func() ([]byte, error) {
		return func() ([]byte, error) { return []byte(text), nil }
	}
	many := make([]record, feedPage+1)
	for i := range many {
		many[i] = record{ID: strconv.Itoa(i + 1), GUN: "registry.example.com/acme/a"}
	}
	tooMany, err := json.Marshal(map[string]any{"records": many})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		answer func() ([]byte, error)
		reason string
	}{
		"no list": {
			func() ([]byte, error) { return nil, fmt.Errorf("requesting: %w", trust.ErrNotFound) },
			v1alpha1.ReasonUnexpectedAnswer,
		},
		"refused": {
			func() ([]byte, error) { return nil, trust.NewFault(v1alpha1.ReasonUnauthorized, "403") },
			v1alpha1.ReasonUnauthorized,
		},
		"web page":       {body("<html>"), v1alpha1.ReasonUnexpectedAnswer},
		"cut":            {body(`{"records":[{"ID":"1","GUN":"a`), v1alpha1.ReasonUnexpectedAnswer},
		"number as text": {body(`{"records":[{"ID":1}]}`), v1alpha1.ReasonUnexpectedAnswer},
		"negative":       {body(`{"records":[{"ID":"-1"}]}`), v1alpha1.ReasonUnexpectedAnswer},
		"no ID": {
			body(`{"records":[{"GUN":"registry.example.com/acme/a"}]}`), v1alpha1.ReasonUnexpectedAnswer,
		},
		"path as ID": {body(`{"records":[{"ID":"../../x"}]}`), v1alpha1.ReasonUnexpectedAnswer},
		"long ID": {
			body(`{"records":[{"ID":"` + strings.Repeat("1", 65) + `"}]}`), v1alpha1.ReasonUnexpectedAnswer,
		},
		"same ID twice":       {body(`{"records":[{"ID":"7"},{"ID":"7"}]}`), v1alpha1.ReasonUnexpectedAnswer},
		"more than requested": {body(string(tooMany)), v1alpha1.ReasonTooLarge},
		"many values": {
			body(`{"records":[` + strings.Repeat(`{},`, 100_000) + `{}]}`), v1alpha1.ReasonUnexpectedAnswer,
		},
		"too large": {body(`{"records":[]}` + strings.Repeat(" ", maxFeedSize)), v1alpha1.ReasonTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &feedServer{}
			s.publish("acme/a")
			r := newFeed(t, s)
			first := mustRead(t, r, nil)
			s.answer = tt.answer
			got, err := r.Changes(t.Context(), first.Cursor)
			wantFault(t, err, tt.reason)
			if len(got.Repositories) > 0 {
				t.Errorf("got %v beside a fault, want none", got.Repositories)
			}
			_, err = r.Changes(t.Context(), nil)
			wantFault(t, err, tt.reason)
		})
	}
	t.Run("empty", func(t *testing.T) { // an empty feed would mark every repository as unchanged
		for _, text := range []string{`{"count":0,"records":null}`, `{}`, `null`} {
			_, err := newFeed(t, &feedServer{answer: body(text)}).Changes(t.Context(), nil)
			wantFault(t, err, v1alpha1.ReasonUnexpectedAnswer)
		}
	})
}

func FuzzFeed(f *testing.F) {
	f.Add(
		[]byte(
			`{"count":1,"records":[{"ID":"1","CreatedAt":"2026-01-01T00:00:00Z","GUN":"registry.example.com/acme/a","Version":1,"SHA256":"00","Category":"update"}]}`))
	f.Add([]byte(`{"records":[{"ID":"2","GUN":"../x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s := &feedServer{answer: func() ([]byte, error) { return body, nil }}
		r := newFeed(t, s)
		for _, after := range []trust.Cursor{nil, {"0"}, {"1", "2 00"}} {
			got, err := r.Changes(t.Context(), after)
			var fault *trust.Fault
			if err != nil && !errors.As(err, &fault) {
				t.Errorf("got %v, want a fault", err)
			}
			if err != nil {
				continue
			}
			for _, repository := range got.Repositories {
				if err := checkRepository(repository); err != nil {
					t.Error(err)
				}
			}
			if got.Cursor != nil && len(got.Cursor) > feedWindow+1 {
				t.Errorf("got a cursor of %d records, want none", len(got.Cursor))
			}
		}
	})
}
