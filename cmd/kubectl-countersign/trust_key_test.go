package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"
)

// keyRoom prepares a current folder and a trust directory, with passphrases in Docker's variables.
func keyRoom(t *testing.T) (trustDir string) {
	t.Helper()
	t.Chdir(t.TempDir())
	config := filepath.Join(t.TempDir(), ".docker")
	t.Setenv("DOCKER_CONFIG", config)
	t.Setenv("NOTARY_TRUST_DIR", "")
	for _, role := range []string{"ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"} {
		t.Setenv("NOTARY_"+role+"_PASSPHRASE", "")
	}
	t.Setenv("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "passphrase of root")
	t.Setenv("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "passphrase of others")
	return filepath.Join(config, "trust")
}

// command runs a command line.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	streams, _, o, e := genericiooptions.NewTestIOStreams()
	code = run(t.Context(), args, streams)
	return code, o.String(), e.String()
}

// done runs a command line that must succeed.
func done(t *testing.T, args ...string) (out, errs string) {
	t.Helper()
	code, out, errs := command(t, args...)
	if code != exitDone {
		t.Fatalf("%q: got exit code %d and %q, want %d", args, code, errs, exitDone)
	}
	return out, errs
}

// privateKey writes a private key to a file of the current folder.
func privateKey(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(name, text, mode); err != nil {
		t.Fatal(err)
	}
}

// files returns the files below folders.
func files(t *testing.T, dirs ...string) []string {
	t.Helper()
	var names []string
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				names = append(names, name)
			}
			return nil
		})
	}
	return names
}

// The examples in the help of the commands work.
func TestKeyExamples(t *testing.T) {
	keyRoom(t)
	privateKey(t, "ci.pem", 0o600)
	key, _, err := newRoot(&environment{cluster: genericclioptions.NewConfigFlags(true)}).Find([]string{"trust", "key"})
	if err != nil {
		t.Fatal(err)
	}
	// The first makes the key that the second exports.
	commands := []string{"generate", "export", "list", "load"}
	for _, c := range key.Commands() {
		if !slices.Contains(commands, c.Name()) && c.Name() != "rotate" {
			t.Errorf("got command %q without a test of its example", c.Name())
		}
	}
	for _, name := range commands {
		i := slices.IndexFunc(key.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
		if i < 0 || key.Commands()[i].Example == "" {
			t.Errorf("got no example of %q, want one", name)
			continue
		}
		for line := range strings.Lines(key.Commands()[i].Example) {
			args := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "kubectl countersign "))
			out, _ := done(t, args...)
			if !strings.Contains(out, "ci") {
				t.Errorf("%q: got %q, want the key of ci in it", args, out)
			}
		}
	}
}

// A key is made, listed, exported and loaded elsewhere; each result can be read by a program.
func TestKeyCommands(t *testing.T) {
	dir := keyRoom(t)
	out, errs := done(t, "trust", "key", "generate", "ci", "-o", "json")
	var made keysResult
	if err := json.Unmarshal([]byte(out), &made); err != nil || len(made.Keys) != 1 {
		t.Fatalf("got %q and error %v, want one key in JSON", out, err)
	}
	id := made.Keys[0].ID
	want := keysResult{TrustDir: dir, PublicKeyFile: "ci.pub", Keys: []keyResult{
		{ID: id, Role: "ci", Encrypted: true, File: filepath.Join(dir, "private", id+".key")},
	}}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("generate: want -, got +\n%s", diff)
	}
	if errs != "" {
		t.Errorf("got %q on stderr, want nothing", errs)
	}
	public, err := os.ReadFile("ci.pub")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(public)
	if block == nil || block.Type != "PUBLIC KEY" || block.Headers["role"] != "ci" {
		t.Errorf("got %q, want a public key with the role ci", public)
	}
	for _, name := range append(files(t, dir), "ci.pub") {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got %v and error %v, want mode 0600", name, info.Mode(), err)
		}
	}
	out, _ = done(t, "trust", "key", "list")
	if !strings.HasPrefix(out, "ROLE") || !strings.Contains(out, "ci     "+id) {
		t.Errorf("got %q, want a table with key %s", out, id)
	}
	if out, _ := done(t, "trust", "key", "export", "ci"); !strings.Contains(out, "ci-"+id[:7]+".key") {
		t.Errorf("got %q, want a file named by the key", out)
	}
	file := "ci-" + id[:7] + ".key"
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v and error %v, want mode 0600", info, err)
	}
	other := t.TempDir()
	out, _ = done(t, "trust", "key", "load", file, "-d", other, "-o", "yaml")
	var loaded keysResult
	if err := yaml.Unmarshal([]byte(out), &loaded); err != nil || len(loaded.Keys) != 1 || loaded.Keys[0].ID != id {
		t.Errorf("got %q and error %v, want key %s in YAML", out, err, id)
	}
	t.Setenv("NOTARY_TRUST_DIR", other)
	out, _ = done(t, "trust", "key", "list", "-o", "json")
	if !strings.Contains(out, id) || !strings.Contains(out, other) {
		t.Errorf("got %q, want key %s of %s", out, id, other)
	}
}

// A new root key comes with the advice to back it up; other keys do not.
func TestRootKeyAdvice(t *testing.T) {
	keyRoom(t)
	out, errs := done(t, "trust", "key", "generate", "root")
	if !strings.Contains(errs, "Back up the root key now") || strings.Contains(out, "Back up") {
		t.Errorf("got %q on stderr and %q on stdout, want the advice on stderr", errs, out)
	}
	_, advice, _ := strings.Cut(errs, "'")
	advice, _, _ = strings.Cut(advice, "'")
	done(t, strings.Fields(advice)...) // the advised command works
	if _, errs := done(t, "trust", "key", "generate", "qa"); errs != "" {
		t.Errorf("got %q on stderr for a signer's key, want nothing", errs)
	}
}

// --dry-run writes nothing.
func TestKeyDryRun(t *testing.T) {
	dir := keyRoom(t)
	privateKey(t, "ci.pem", 0o600)
	for _, args := range [][]string{{"generate", "ci"}, {"load", "ci.pem"}} {
		out, _ := done(t, slices.Concat([]string{"trust", "key"}, args, []string{"--dry-run"})...)
		if !strings.HasPrefix(out, "Would ") {
			t.Errorf("%q: got %q, want what would be done", args, out)
		}
	}
	if got := files(t, ".", dir); !slices.Equal(got, []string{"ci.pem"}) {
		t.Errorf("got files %q, want none but ci.pem", got)
	}
	done(t, "trust", "key", "load", "ci.pem", "--name", "ci")
	before := files(t, ".", dir)
	done(t, "trust", "key", "export", "--dry-run", "ci", "out.key")
	if got := files(t, ".", dir); !slices.Equal(got, before) {
		t.Errorf("got files %q, want %q", got, before)
	}
}

// Bad input is one line that says what to do, and changes nothing.
func TestKeyErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, dir string)
		args    []string
		want    []string
	}{
		"a name that is none":      {nil, []string{"generate", "CI/../x"}, []string{`name "CI/../x"`, "a-z"}},
		"a name of a repository's": {nil, []string{"generate", "targets"}, []string{"choose a signer's name"}},
		"releases":                 {nil, []string{"generate", "releases"}, []string{"the delegation of all signers"}},
		"a public key that exists": {func(t *testing.T, _ string) { privateKey(t, "qa.pub", 0o600) },
			[]string{"generate", "qa"}, []string{"qa.pub exists already", "move it away"}},
		"no folder for the public key": {nil, []string{"generate", "qa", "--dir", "none"},
			[]string{"there is no folder none"}},
		"no terminal": {func(t *testing.T, _ string) { t.Setenv("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "") },
			[]string{"generate", "qa"}, []string{"no terminal", "DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE"}},
		"others can read the store": {func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "private"), 0o755) },
			[]string{"list"}, []string{"others can read", "chmod -R go="}},
		"others can read the store, on a dry run": {
			func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, "private"), 0o755) },
			[]string{"generate", "qa", "--dry-run"}, []string{"others can read", "chmod -R go="}},
		"others can read the file": {func(t *testing.T, _ string) { privateKey(t, "qa.pem", 0o644) },
			[]string{"load", "qa.pem"}, []string{"others can read", "chmod 600 qa.pem"}},
		"no file":       {nil, []string{"load", "none.pem"}, []string{"there is no file none.pem"}},
		"a public key":  {nil, []string{"load", "ci.pub"}, []string{`"PUBLIC KEY" is not a private key`}},
		"no such key":   {nil, []string{"export", "none"}, []string{"there is no such key", "trust key list"}},
		"a file exists": {nil, []string{"export", "ci", "ci.pub"}, []string{"ci.pub exists already", "--force"}},
		"no folder":     {nil, []string{"export", "ci", "none/ci.key"}, []string{"there is no folder none"}},
		"no arguments":  {nil, []string{"export"}, []string{"accepts between 1 and 2 arg(s)"}},
		"a passphrase as an argument": {nil, []string{"generate", "qa", "--passphrase=secret"},
			[]string{"unknown flag: --passphrase"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := keyRoom(t)
			done(t, "trust", "key", "generate", "ci")
			if tt.prepare != nil {
				tt.prepare(t, dir)
			}
			before := contents(t, ".", dir)
			code, out, errs := command(t, append([]string{"trust", "key"}, tt.args...)...)
			if code != exitError {
				t.Errorf("got exit code %d, want %d", code, exitError)
			}
			if out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "error: ") {
				t.Errorf("got %q on stdout and %q on stderr, want one line on stderr", out, errs)
			}
			for _, w := range tt.want {
				if !strings.Contains(errs, w) {
					t.Errorf("got %q, want %q in it", errs, w)
				}
			}
			if diff := cmp.Diff(before, contents(t, ".", dir)); diff != "" {
				t.Errorf("files: want -, got +\n%s", diff)
			}
		})
	}
}

func chmod(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range files(t, dirs...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(text)
	}
	return all
}

// --force replaces a file by an export that only its owner can read, whatever the file was.
func TestThreatForcedExportIsForItsOwnerOnly(t *testing.T) {
	keyRoom(t)
	done(t, "trust", "key", "generate", "ci")
	if err := os.WriteFile("old.key", []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	done(t, "trust", "key", "export", "ci", "old.key", "--force")
	info, err := os.Stat("old.key")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("old.key")
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 || !bytes.HasPrefix(text, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----")) {
		t.Errorf("got mode %v and %q, want an encrypted key of mode 0600", info.Mode(), text)
	}
}

// A public key that cannot be written leaves no private key either.
func TestInterruptedGenerate(t *testing.T) {
	dir := keyRoom(t)
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	s, err := (&trustOptions{environment: &environment{IOStreams: streams}}).keys()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := generateKey(t.Context(), s, "ci", filepath.Join("none", "ci.pub")); err == nil {
		t.Error("got no error, want one for the missing folder")
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("got files %q in the store, want none", got)
	}
}

// A file that is no key is a warning; the others are listed.
func TestListWithDamagedFile(t *testing.T) {
	dir := keyRoom(t)
	done(t, "trust", "key", "generate", "ci")
	name := filepath.Join(dir, "private", strings.Repeat("ab", 32)+".key")
	if err := os.WriteFile(name, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs := done(t, "trust", "key", "list")
	if !strings.Contains(out, "ci") || strings.Contains(out, "abab") || !strings.HasPrefix(errs, "warning: ") ||
		!strings.Contains(errs, name) || strings.Count(errs, "\n") != 1 {
		t.Errorf("got %q and %q, want the key of ci, and a warning of %s", out, errs, name)
	}
	_, errs = done(t, "trust", "key", "list", "-d", t.TempDir())
	if !strings.HasPrefix(errs, "No keys in ") {
		t.Errorf("got %q, want that there are no keys", errs)
	}
}
