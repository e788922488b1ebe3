package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/inspection"
	"github.com/countersign-dev/countersign/internal/inventory"
	"github.com/countersign-dev/countersign/internal/notarysign"
)

// hostile is a text from outside that clears the terminal, and looks like a line of the command.
const hostile = "v1\x1b[2J\r\u009b\u202e\nadmitted         registry.example.com/acme/evil:v1\t"

// noControls fails if a text controls the terminal, or if a part of hostile begins a line.
func noControls(t *testing.T, from, text string) {
	t.Helper()
	if !strings.Contains(text, `v1\u001b[2J\u000d\u009b\u202e`) {
		t.Errorf("%s: got %q, want the text escaped in it", from, text)
	}
	if strings.ContainsAny(text, "\x1b\r\u009b\u202e") ||
		strings.Contains(text, "\nadmitted         registry.example.com/acme/evil") {
		t.Errorf("%s: got %q, want no control characters and no forged line", from, text)
	}
}

// A manifest, a registry, a Pod, a server and a key store cannot control the user's terminal, nor
// forge a line of the output.
func TestThreatTerminalIsNotControlled(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	policies := filepath.Join(folder, "p.yaml")
	if err := os.WriteFile(policies, []byte(gone), 0o600); err != nil {
		t.Fatal(err)
	}
	quoted := `"` + strings.NewReplacer("\x1b", `\e`, "\r", `\r`, "\u009b", `\x9b`, "\u202e", `\u202e`, "\n", `\n`,
		"\t", `\t`).Replace(hostile) + `"`
	manifest := strings.ReplaceAll(pod, "registry.example.com/acme/web:v1", quoted)
	args := []string{"verify", "--policies", policies, "-f", "-", "--namespace-labels="}
	for _, format := range []string{"text", "json", "yaml", "junit"} {
		_, out, _ := runProcess(t, manifest, append(args, "-o", format)...)
		switch format {
		case "text":
			noControls(t, format, out)
		default:
			if strings.ContainsAny(out, "\x1b\r\u009b\u202e") {
				t.Errorf("%s: got %q, want no control characters", format, out)
			}
		}
	}
	named := strings.ReplaceAll(pod, "{name: web}", "{name: "+quoted+"}")
	_, out, errs := runProcess(t, named, args...)
	noControls(t, "name of a workload", out+errs)
	// A message of a server is on one line of stderr.
	_, _, errs = runProcess(t, "", "verify", "--policies", policies, "nginx", "--uncovered-images",
		hostile)
	if strings.ContainsAny(errs, "\x1b\r\u009b\u202e") {
		t.Errorf("error: got %q, want no control characters", errs)
	}

	var b strings.Builder
	repository := inspection.Repository{
		Name: "registry.example.com/acme/app", Images: []inspection.Image{{
			Tag: hostile, Signatures: []inspection.Signature{{Role: "ci", Keys: []inspection.Key{{ID: hostile}}}},
			Rejected: []string{hostile},
		}},
		Roots: []inspection.Root{{Name: "acme", Faults: []string{hostile}}}, Notes: []string{hostile},
	}
	if err := repository.Write(&b, nil); err != nil {
		t.Fatal(err)
	}
	noControls(t, "inspect", b.String())

	b.Reset()
	trial := inventory.Trial{Faults: []string{hostile}, Policies: []inventory.PolicyTrial{{
		Workloads: []inventory.WorkloadTrial{{Images: []inventory.ImageTrial{{Image: hostile, Reason: hostile}}}},
	}}}
	if err := printTrialText(&b, &trial, true); err != nil {
		t.Fatal(err)
	}
	noControls(t, "try", b.String())

	noControls(t, "trust inspect", inspectionText(notarysign.Inspection{
		Tags:    []notarysign.SignedTag{{Tag: hostile, Signers: []string{hostile}}},
		Signers: []notarysign.Role{{Name: hostile, Keys: []string{hostile}}},
	}))
}
