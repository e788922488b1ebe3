package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README and docs/cli.md show what make minute prints.
func TestPagesShowTheOutput(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "kubectl-countersign")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/kubectl-countersign")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	folder := filepath.Join(t.TempDir(), "policies")
	var out bytes.Buffer
	if err := run(t.Context(), &out, binary, folder, false); err != nil {
		t.Fatal(err)
	}
	got := strings.NewReplacer(binary, "bin/kubectl-countersign", folder, "bin/policies").Replace(out.String())
	for _, want := range []string{
		"admitted         localhost:", `role "qa" has not signed`, "1 admitted, 0 denied", "0 admitted, 1 denied",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %q in it", got, want)
		}
	}
	verified, inspected, ok := strings.Cut(got, "$ bin/kubectl-countersign inspect")
	if !ok {
		t.Fatalf("got %s, want the command inspect in it", got)
	}
	for page, parts := range map[string][]string{
		"../../README.md": {verified}, "../../docs/cli.md": {verified, "$ bin/kubectl-countersign inspect" + inspected},
	} {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(normalised(string(content)), normalised(strings.TrimSpace(part))) {
				t.Errorf("%s does not show this, which make minute prints (ports, digests, keys and days aside):\n%s",
					page, part)
			}
		}
	}
}

// normalised replaces what differs between two runs.
func normalised(text string) string {
	text = regexp.MustCompile(`localhost:\d+`).ReplaceAllString(text, "localhost:5000")
	text = regexp.MustCompile(`sha256:[0-9a-f]+`).ReplaceAllString(text, "sha256:0")
	text = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(text, "0")
	text = regexp.MustCompile(`\d{4}-\d\d-\d\d`).ReplaceAllString(text, "2026-11-30")
	return regexp.MustCompile(`key [0-9a-f]{12}`).ReplaceAllString(text, "key 0")
}
