package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

const convertCases = "../../internal/convert/testdata/"

// convert writes the objects to stdout and a line for each note to stderr.
func TestConvert(t *testing.T) {
	streams, _, out, errs := genericiooptions.NewTestIOStreams()
	args := []string{
		"convert", "-f", convertCases + "containers/policy.json",
		"--registries-d", convertCases + "containers/registries.d",
	}
	if code := run(t.Context(), args, streams); code != exitDone {
		t.Fatalf("got exit code %d, want %d: %s", code, exitDone, errs)
	}
	want, err := os.ReadFile(convertCases + "containers/want.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got other objects than %scontainers/want.yaml", convertCases)
	}
	line := "policy.json:34: transports.docker.registry.example.com/acme/banned:v1: narrowed: "
	if !strings.Contains(errs.String(), line) {
		t.Errorf("got %q, want %q in it", errs, line)
	}
}

// With --strict, a conversion that is not complete prints the result and exits with 1.
func TestConvertStrict(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		code   int
	}{
		"complete": {`{"default": [{"type": "reject"}]}`, exitDone},
		"narrowed": {`{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a.gpg"}]}`, exitDenied},
	} {
		t.Run(name, func(t *testing.T) {
			streams, in, out, errs := genericiooptions.NewTestIOStreams()
			in.WriteString(c.policy)
			args := []string{"convert", "-f", "-", "--strict", "-o", "json"}
			if code := run(t.Context(), args, streams); code != c.code {
				t.Errorf("got exit code %d, want %d: %s", code, c.code, errs)
			}
			if !strings.HasPrefix(out.String(), "{") {
				t.Errorf("got %q on stdout, want JSON", out)
			}
		})
	}
}

// Bad input is one line on stderr, exit code 3, and nothing on stdout.
func TestConvertBadInput(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		in   string
		want string
	}{
		"no file":        {nil, "", "name one with -f"},
		"missing file":   {[]string{"-f", "missing.yaml"}, "", "missing.yaml: no such file"},
		"a folder":       {[]string{"-f", t.TempDir()}, "", "is a directory"},
		"large":          {[]string{"-f", large}, "", "is larger than the 4 MiB"},
		"from":           {[]string{"-f", "-", "--from", "acme"}, "", "--from must be one of connaisseur"},
		"output":         {[]string{"-f", "-", "-o", "text"}, "", "must be one of yaml, json"},
		"stdin is empty": {[]string{"-f", "-"}, "", "stdin: is empty"},
		"unknown kind":   {[]string{"-f", "-"}, "apiVersion: v1\nkind: Pod\n", "stdin:1: the document has"},
		"a template":     {[]string{"-f", "-"}, "a: {{ .Values.a }}\n", "stdin:1: this is a template"},
		"registries.d": {
			[]string{"-f", convertCases + "containers/policy.json", "--registries-d", "missing"}, "", "missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			streams, in, out, errs := genericiooptions.NewTestIOStreams()
			in.WriteString(c.in)
			if code := run(t.Context(), append([]string{"convert"}, c.args...), streams); code != exitError {
				t.Errorf("got exit code %d, want %d", code, exitError)
			}
			if got := errs.String(); !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("got %q on stderr, want one line with %q", got, c.want)
			}
			if out.Len() > 0 {
				t.Errorf("got %q on stdout, want nothing", out)
			}
		})
	}
}
