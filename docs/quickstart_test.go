package docs_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// curl prints to standard error why it cannot reach or trust a server. With -s it does so only if
// -S is set too. A pipe would hide the answer of the server.
func TestCurlShowsWhatIsWrong(t *testing.T) {
	commands := 0
	for _, pattern := range []string{"*.md", "spec/*.md", "runbooks/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			for _, flags := range regexp.MustCompile(`(?m)\bcurl (-\S+)`).FindAllStringSubmatch(read(t, "docs/"+page),
				-1) {
				commands++
				if strings.HasPrefix(flags[1], "-s") && !strings.Contains(flags[1], "S") {
					t.Errorf("%s: curl %s prints no error", page, flags[1])
				}
			}
		}
	}
	if commands == 0 {
		t.Fatal("no page has a curl command")
	}
	for line := range strings.Lines(read(t, "docs/registries.md")) {
		if strings.HasPrefix(line, "curl ") && strings.Contains(line, "|") {
			t.Errorf("docs/registries.md pipes an answer that its table explains: %s", line)
		}
	}
}

// A TrustRoot is Ready with any server. Only Fresh shows that the server is a Notary server.
func TestQuickStartWaitsForTheServer(t *testing.T) {
	page := read(t, "docs/quickstart-dct.md")
	for _, condition := range []string{"Ready", "Fresh"} {
		if !regexp.MustCompile(
			`(?m)^\$ kubectl wait --for=condition=` + condition + ` .*trustroot\.countersign\.dev/quickstart`).
			MatchString(page) {
			t.Errorf("docs/quickstart-dct.md does not wait for %s of its TrustRoot", condition)
		}
	}
}
