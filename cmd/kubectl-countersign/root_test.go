package main

import (
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// A wrong command line is one line on stderr and exit code 3.
func TestUsageErrors(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown command": {"verfy"}, "unknown flag": {"--polices=."},
	} {
		t.Run(name, func(t *testing.T) {
			streams, _, out, errs := genericiooptions.NewTestIOStreams()
			if code := run(t.Context(), args, streams); code != exitError {
				t.Errorf("got exit code %d, want %d", code, exitError)
			}
			if got := errs.String(); !strings.HasPrefix(got, "error: ") || strings.Count(got, "\n") != 1 {
				t.Errorf("got %q on stderr, want one line", got)
			}
			if out.Len() > 0 {
				t.Errorf("got %q on stdout, want nothing", out)
			}
		})
	}
}

// The help says which exit codes there are.
func TestHelp(t *testing.T) {
	streams, _, out, _ := genericiooptions.NewTestIOStreams()
	if code := run(t.Context(), []string{"--help"}, streams); code != exitDone {
		t.Errorf("got exit code %d, want %d", code, exitDone)
	}
	if want := "Exit codes: 0 done or admitted, 1 denied, 2 could not check, 3"; !strings.Contains(out.String(), want) {
		t.Errorf("got %q, want %q in it", out, want)
	}
}
