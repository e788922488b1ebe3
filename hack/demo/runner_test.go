package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnswersAreChecked(t *testing.T) {
	const denial = `Error from server (Forbidden): admission webhook "validate.countersign.dev" denied the request: role "qa" has not signed`
	admitted := answer{command: "kubectl run", output: "pod/app created\n"}
	denied := answer{command: "kubectl run", output: denial, failed: true}
	broken := answer{command: "kubectl run", output: "connection refused", failed: true}
	tests := map[string]struct {
		got  error
		want string // part of the error; empty: no error
	}{
		"admitted as expected":      {admitted.succeeds("created"), ""},
		"denied as expected":        {denied.denied(`role "qa"`), ""},
		"denied, not expected":      {denied.succeeds(), "expected: success"},
		"admitted, not expected":    {admitted.denied(), "expected: a denial"},
		"failed in another way":     {broken.denied(), "expected: a denial"},
		"denied for another reason": {denied.denied(`role "ci"`), `contains "role \"ci\""`},
		"another answer":            {admitted.succeeds("unchanged"), `contains "unchanged"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.want == "" {
				if tt.got != nil {
					t.Error(tt.got)
				}
				return
			}
			if tt.got == nil || !strings.Contains(tt.got.Error(), tt.want) ||
				!strings.Contains(tt.got.Error(), "kubectl run") {
				t.Errorf("got %v, want an error with %q and the command", tt.got, tt.want)
			}
		})
	}
}

func TestUntil(t *testing.T) {
	d := &demo{&environment{out: &bytes.Buffer{}}}
	calls := 0
	_, err := d.until(t.Context(), time.Minute, time.Millisecond, "three calls", func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("got %d calls and error %v, want 3 and none", calls, err)
	}
	never := errors.New("never")
	if _, err := d.until(t.Context(), time.Millisecond, time.Millisecond, "nothing",
		func() error { return never }); !errors.Is(err, never) {
		t.Errorf("past the limit: got %v, want %v", err, never)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.until(ctx, time.Minute, time.Minute, "nothing", func() error { return never }); !errors.Is(err,
		context.Canceled) {
		t.Errorf("interrupted: got %v, want %v", err, context.Canceled)
	}
}

func TestQuoted(t *testing.T) {
	got := quoted([]string{"get", "-o", "jsonpath={.x}", "it's"})
	if want := []string{"get", "-o", "'jsonpath={.x}'", `'it'\''s'`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAbridged(t *testing.T) {
	manifest := `
spec:
  caBundle: |
    -----BEGIN CERTIFICATE-----
    one
    two
    -----END CERTIFICATE-----
  keys:
  - |-
    a
    b
  long: ` + strings.Repeat("x", 200) + `
  roles: [ci]
`
	want := `spec:
  caBundle: |
    -----BEGIN CERTIFICATE-----
    ... (3 more lines)
  keys:
  - |-
    a
    b
  long: ` + strings.Repeat("x", 89) + `...
  roles: [ci]`
	if got := abridged(manifest); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStories(t *testing.T) {
	for name, told := range stories(&demo{&environment{}}) {
		for i, s := range told.steps() {
			if s.title == "" || s.why == "" || s.run == nil {
				t.Errorf("%s, step %d: got %+v, want a title, an explanation and a function", name, i+1, s)
			}
			for _, line := range strings.Split(s.why, "\n") {
				if len(line) > 100 {
					t.Errorf("%s, step %d: got a line of %d bytes, want at most 100: %s", name, i+1, len(line), line)
				}
			}
		}
		for _, s := range told.servers() {
			if s.what == "" || s.start == nil {
				t.Errorf("%s: got the server %+v, want a text and a function", name, s)
			}
		}
	}
	if err := run(t.Context(), &bytes.Buffer{}, "no-such", false); err == nil || !strings.Contains(err.Error(),
		"dct, sigstore, formats or migration") {
		t.Errorf("got %v, want an error that lists the stories", err)
	}
}
