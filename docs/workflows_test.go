package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// workflow is the part of a file in .github/workflows that the tests check.
type workflow struct {
	On          map[string]any    `json:"true"` // YAML takes the key "on" for a boolean
	Permissions map[string]string `json:"permissions"`
	Jobs        map[string]job    `json:"jobs"`
	text        string
}

type job struct {
	Needs       []string          `json:"needs"`
	Uses        string            `json:"uses"`
	Secrets     any               `json:"secrets"`
	Permissions map[string]string `json:"permissions"`
	Environment string            `json:"environment"`
	Timeout     int               `json:"timeout-minutes"`
	Steps       []struct {
		Uses string         `json:"uses"`
		Run  string         `json:"run"`
		With map[string]any `json:"with"`
	} `json:"steps"`
}

func (j job) runs(command string) bool {
	for _, s := range j.Steps {
		if strings.Contains(s.Run, command) {
			return true
		}
	}
	return false
}

func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(root, ".github", "workflows"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]workflow{}
	for _, f := range files {
		w := workflow{text: read(t, ".github/workflows/"+f.Name())}
		if err := yaml.Unmarshal([]byte(w.text), &w); err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		all[f.Name()] = w
	}
	return all
}

// The owner of an action, or an attacker, can move its tag. A digest cannot be moved. The comment
// beside the digest names the version.
func TestActionsArePinned(t *testing.T) {
	use := regexp.MustCompile(`(?m)^\s*(?:- )?uses: (.*)$`)
	pinned := regexp.MustCompile(`^([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$`)
	seen := map[string]string{}
	for name, w := range workflows(t) {
		uses := use.FindAllStringSubmatch(w.text, -1)
		if n := strings.Count(w.text, "uses:"); n != len(uses) {
			t.Errorf("%s: %d of %d uses are on a line of their own", name, len(uses), n)
		}
		for _, u := range uses {
			if strings.HasPrefix(u[1], "./") {
				continue
			}
			m := pinned.FindStringSubmatch(u[1])
			if m == nil {
				t.Errorf("%s: %q is not pinned by a digest of 40 digits, with its version as a comment", name, u[1])
				continue
			}
			if other, ok := seen[m[1]]; ok && other != u[1] {
				t.Errorf("%s: %q, and elsewhere %q", name, u[1], other)
			}
			seen[m[1]] = u[1]
		}
	}
	if len(seen) < 2 {
		t.Errorf("found only the actions %v", seen)
	}
}

func TestWorkflowsMayDoLittle(t *testing.T) {
	writes := map[string][]string{"release.yaml build": {"contents"}, "release.yaml publish": {"contents"}}
	host := regexp.MustCompile(`\b(docker|gcr|ghcr|quay)\.io\b`)
	for name, w := range workflows(t) {
		if len(w.Permissions) != 1 || w.Permissions["contents"] != "read" {
			t.Errorf("%s: permissions %v for every job, want contents: read", name, w.Permissions)
		}
		for id, j := range w.Jobs {
			for scope, access := range j.Permissions {
				if access != "read" && !slices.Contains(writes[name+" "+id], scope) {
					t.Errorf("%s: job %s may %s %s", name, id, access, scope)
				}
			}
			if j.Timeout == 0 && j.Uses == "" {
				t.Errorf("%s: job %s has no timeout-minutes", name, id)
			}
			for _, s := range j.Steps {
				if strings.Contains(s.Run, "${{") {
					t.Errorf("%s: job %s writes what GitHub gives into a script; hand it over in env: %s", name,
						id, s.Run)
				}
				if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != false {
					t.Errorf("%s: job %s leaves the token in the checkout", name, id)
				}
				if j.runs(".ci/run") && strings.HasPrefix(s.Uses, "actions/checkout@") &&
					s.With["fetch-depth"] != float64(0) {
					t.Errorf(
						"%s: job %s tests upgrades without the history that holds the previous release; want "+
							"fetch-depth: 0", name, id)
				}
				if name == "release.yaml" && strings.HasPrefix(s.Uses, "actions/setup-go@") &&
					s.With["cache"] != false {
					t.Errorf("%s: job %s builds with a cache that other workflows write", name, id)
				}
			}
		}
		if _, ok := w.On["pull_request_target"]; ok {
			t.Errorf("%s: runs what a stranger sends, with the rights of the repository", name)
		}
		if found := host.FindString(w.text); found != "" {
			t.Errorf("%s: names the registry %s; it is a variable of the repository", name, found)
		}
	}
}

func TestWorkflowsRunCI(t *testing.T) {
	all := workflows(t)
	ci, release := all["ci.yaml"], all["release.yaml"]
	if !ci.Jobs["test"].runs(".ci/run") {
		t.Error("ci.yaml does not run .ci/run")
	}
	if _, ok := ci.On["pull_request"]; !ok || !strings.Contains(ci.text, "branches: [main]") {
		t.Errorf("ci.yaml runs on %v, want pull requests and main", ci.On)
	}
	if strings.Contains(ci.text, "secrets.") {
		t.Error("ci.yaml, which runs what anybody sends, uses a secret")
	}
	if !release.Jobs["ci"].runs(".ci/run") {
		t.Error("release.yaml does not run .ci/run")
	}
	if !release.Jobs["build"].runs("make release") ||
		!release.Jobs["test-node"].runs(`make test-node VERSION="$GITHUB_REF_NAME" IMAGE="$IMAGE"`) {
		t.Error("release.yaml does not run make release, and make test-node on what that has built")
	}
	if !strings.Contains(all["sign.yaml"].text, "make sign ") {
		t.Error("sign.yaml does not run make sign")
	}
	for id, want := range map[string][]string{ // each with what has to have passed before
		"build": {"ci"}, "sign-ci": {"build"}, "test-node": {"build"}, "sign-qa": {"build", "test-node"},
		"publish": {"sign-ci", "sign-qa"},
	} {
		if got := release.Jobs[id].Needs; !slices.Equal(got, want) {
			t.Errorf("release.yaml: job %s needs %v, want %v", id, got, want)
		}
	}
}

// A called workflow has no secrets, not even those of its job's environment, unless the caller
// passes its own. The caller has none, because every secret belongs to an environment. So a signing
// job gets only the secrets of its own environment.
func TestSignersGetTheirSecrets(t *testing.T) {
	signers := 0
	for id, j := range workflows(t)["release.yaml"].Jobs {
		if !strings.HasSuffix(j.Uses, "/sign.yaml") {
			continue
		}
		signers++
		if j.Secrets != "inherit" {
			t.Errorf("job %s passes the secrets %v on, want inherit", id, j.Secrets)
		}
	}
	if signers != 2 {
		t.Errorf("%d jobs sign, want 2", signers)
	}
}

// A version such as v1.2.3-rc.1 is not marked as the latest release. The test runs the script, with
// echo instead of gh.
func TestCandidatesAreMarked(t *testing.T) {
	var script string
	for _, s := range workflows(t)["release.yaml"].Jobs["build"].Steps {
		if strings.Contains(s.Run, "gh release create") {
			script = s.Run
		}
	}
	for version, want := range map[string]string{"v1.2.3": "--prerelease=false", "v1.2.3-rc.1": "--prerelease=true"} {
		cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", "gh() { echo \"$@\"; }\n"+script)
		cmd.Env = append(os.Environ(), "GITHUB_REF_NAME="+version)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "create "+version+" ") || !strings.Contains(string(out), want) {
			t.Errorf("%s: got %s (%v), want %s", version, out, err, want)
		}
	}
}
