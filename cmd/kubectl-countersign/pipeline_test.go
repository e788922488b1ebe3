package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/notarykeys"
)

// The example pipeline adds a signer on a real Notary server. Its steps run as they are in the
// file, one shell each, and hand over a private key with which the signer can sign.
func TestSignerPipeline(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "examples", "pipelines", "github-signer.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var pipeline struct {
		Jobs map[string]struct{ Steps []struct{ Name, Run string } }
	}
	if err := yaml.Unmarshal(content, &pipeline); err != nil {
		t.Fatal(err)
	}
	r := newTrustRoom(t)
	done(t, "trust", "sign", r.repository+":v1", "--init", "ci")
	root, targets := keyOf(r, "root"), keyOf(r, "targets")
	done(t, "trust", "key", "export", targets, "repository.key")
	key, err := os.ReadFile("repository.key")
	if err != nil {
		t.Fatal(err)
	}
	work, vault := t.TempDir(), filepath.Join(t.TempDir(), "vault")
	tool(t, filepath.Join(work, "bin", "kubectl-countersign"), "exec "+os.Args[0]+" \"$@\"\n")
	tool(t, filepath.Join(work, "hand-over"), "cp \"$1\" "+vault+"\n")
	ca := filepath.Join(work, "ca.crt")
	if err := os.WriteFile(ca, r.server.CA.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), runMain+"=1", "PATH="+filepath.Join(work, "bin")+":"+os.Getenv("PATH"),
		"SIGNER=qa", "REPOSITORY="+r.repository, "ROOT_KEY_ID="+root, "REPOSITORY_KEY="+string(key),
		"RUNNER_TEMP="+t.TempDir(), "GITHUB_ENV="+filepath.Join(work, "env"), "NOTARY_REMOTE_SERVER_ROOT_CA="+ca)
	for _, step := range pipeline.Jobs["add"].Steps {
		added, err := os.ReadFile(filepath.Join(work, "env"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), "bash", "-e", "-c", step.Run)
		c.Dir, c.Env = work, append(environment, strings.Fields(string(added))...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", step.Name, err, out)
		}
	}
	if left, err := filepath.Glob(filepath.Join(work, "qa.*")); err != nil || len(left) > 0 {
		t.Errorf("got %v left, %v, want no key", left, err)
	}
	done(t, "trust", "key", "load", vault, "--name", "qa")
	done(t, "trust", "sign", r.repository+":v1", "--role", "qa")
	rows, _ := r.inspect()
	r.want("signed tags", rows, "v1 "+r.digest+" ci,qa released")
}

// keyOf returns the ID of the only key of a role in the trust directory.
func keyOf(r trustRoom, role string) string {
	r.Helper()
	all, err := (&notarykeys.Store{Dir: r.dir}).Find(role, r.repository)
	if err != nil || len(all) != 1 {
		r.Fatalf("%s: got the keys %v, %v, want one", role, all, err)
	}
	return all[0].ID
}

// tool writes a shell script.
func tool(t *testing.T, path, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
}
