package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the transcripts into the pages")

// The page on Docker Content Trust shows what these commands print, in this order, on a real Notary
// server: from the first key to a denial after a revocation.
func TestTrustTranscript(t *testing.T) {
	page, err := filepath.Abs(filepath.Join("..", "..", "docs", "docker-content-trust.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := newTrustRoom(t) // which changes the folder
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if err := os.Mkdir("policies", 0o700); err != nil {
		t.Fatal(err)
	}
	writeObjects(t, "policies", "policy.yaml", imagePolicy("production", v1alpha1.ImagePolicySpec{
		Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern(strings.TrimSuffix(r.repository, "app") + "**")},
		TrustRoots:    []v1alpha1.ObjectName{"acme"},
		RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
	}))
	var transcript strings.Builder
	for _, step := range []struct {
		line string
		code int
	}{
		{"trust key generate ci", exitDone},
		{"trust key generate qa", exitDone},
		{"trust signer add ci REPOSITORY --key ci.pub --init", exitDone},
		{"trust signer add qa REPOSITORY --key qa.pub", exitDone},
		{"trust sign REPOSITORY:v1", exitDone},
		{"trust pin REPOSITORY --name acme > policies/trustroot.yaml", exitDone},
		{"verify --policies policies REPOSITORY:v1", exitDone},
		{"trust revoke REPOSITORY:v1 --role qa", exitDone},
		{"verify --policies policies REPOSITORY:v1", exitDenied},
	} {
		fmt.Fprintf(&transcript, "$ kubectl countersign %s\n", step.line)
		line, file, redirected := strings.Cut(strings.ReplaceAll(step.line, "REPOSITORY", r.repository), " > ")
		streams, _, out, errs := genericiooptions.NewTestIOStreams()
		if code := run(t.Context(), strings.Fields(line), streams); code != step.code {
			t.Fatalf("%s: got exit code %d, %s%s, want %d", step.line, code, out, errs, step.code)
		}
		if redirected {
			if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			out.Reset()
		}
		transcript.WriteString(errs.String() + out.String())
	}
	shows(t, page, r.normalised(transcript.String()))
}

// normalised replaces what differs between two runs.
func (r trustRoom) normalised(transcript string) string {
	r.Helper()
	at, err := url.Parse(r.server.URL)
	if err != nil {
		r.Fatal(err)
	}
	home, err := filepath.EvalSymlinks(filepath.Dir(r.dir))
	if err != nil {
		r.Fatal(err)
	}
	got := strings.NewReplacer(r.repository, "registry.example.com/acme/app", r.server.URL,
		"https://notary.example.com", at.Host, "notary.example.com", home, "~/.docker", filepath.Dir(r.dir),
		"~/.docker").Replace(transcript)
	for _, generated := range []struct{ pattern, shown string }{
		{`sha256:[0-9a-f]{64}`, "sha256:5891b5b5..."}, {`sha256:[0-9a-f]{8}\.\.\.`, "sha256:5891b5b5..."},
		{`\b[0-9a-f]{64}\b`, "84ca6e44..."},
	} {
		got = regexp.MustCompile(generated.pattern).ReplaceAllString(got, generated.shown)
	}
	return got
}

// shows compares a transcript with the console block of a page that begins with the same command.
func shows(t *testing.T, page, got string) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	block := "```console\n" + got + "```"
	if strings.Contains(string(content), block) {
		return
	}
	if !*update {
		t.Fatalf("%s does not show this; run the test with -update:\n%s", page, got)
	}
	first, _, _ := strings.Cut(got, "\n")
	old := regexp.MustCompile("(?s)```console\n" + regexp.QuoteMeta(first) + "\n.*?```")
	text := old.ReplaceAllLiteralString(string(content), block)
	if text == string(content) {
		t.Fatalf("%s has no block that begins with %q", page, first)
	}
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The page on conversions shows what the command says about the values of a Helm chart.
func TestConvertTranscript(t *testing.T) {
	page, err := filepath.Abs(filepath.Join("..", "..", "docs", "convert.md"))
	if err != nil {
		t.Fatal(err)
	}
	testdata := filepath.Join("..", "..", "internal", "convert", "testdata")
	values, err := os.ReadFile(filepath.Join(testdata, "connaisseur-3", "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("values.yaml", values, 0o600); err != nil {
		t.Fatal(err)
	}
	streams, _, out, errs := genericiooptions.NewTestIOStreams()
	if code := run(t.Context(), []string{"convert", "-f", "values.yaml"}, streams); code != exitDone {
		t.Fatalf("got exit code %d, %s, want %d", code, errs, exitDone)
	}
	if !strings.Contains(out.String(), "kind: ImagePolicy") {
		t.Errorf("got %s, want an ImagePolicy in it", out)
	}
	shows(t, page, "$ kubectl countersign convert -f values.yaml > countersign.yaml\n"+errs.String())
}
