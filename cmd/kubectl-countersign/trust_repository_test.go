package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/notarysign"
	"github.com/countersign-dev/countersign/internal/testenv/kubeserver"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

// trustRoom is a registry with an image, a real Notary server with a private CA in Docker's folder,
// and an empty trust directory.
type trustRoom struct {
	*testing.T

	server     *notaryserver.Server
	repository string
	digest     string
	dir        string
}

func newTrustRoom(t *testing.T) trustRoom {
	t.Helper()
	r := trustRoom{T: t, server: notaryserver.Run(t, notaryserver.Options{})} // in this module's folder
	r.dir = keyRoom(t)
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	r.repository = strings.TrimPrefix(images.URL, "http://") + "/acme/app"
	r.digest = r.push("v1")
	at, err := url.Parse(r.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(filepath.Dir(r.dir), "tls", at.Host)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "ca.crt"), r.server.CA.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONTENT_TRUST_SERVER", r.server.URL)
	return r
}

func (r trustRoom) push(tag string) (digest string) {
	r.Helper()
	image, err := random.Image(256, 1)
	if err != nil {
		r.Fatal(err)
	}
	ref, err := name.NewTag(r.repository + ":" + tag)
	if err != nil {
		r.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		r.Fatal(err)
	}
	hash, err := image.Digest()
	if err != nil {
		r.Fatal(err)
	}
	return hash.String()
}

// inspect returns the rows of the signed tags: tag, digest, signers.
func (r trustRoom) inspect() (rows string, all notarysign.Inspection) {
	r.Helper()
	out, _ := done(r.T, "trust", "inspect", r.repository, "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		r.Fatal(err)
	}
	var lines []string
	for _, t := range all.Tags {
		line := t.Tag + " " + t.Digest + " " + strings.Join(t.Signers, ",")
		if t.Released {
			line += " released"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; "), all
}

func (r trustRoom) want(what, got, want string) {
	r.Helper()
	if got != want {
		r.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// A publisher's life: make a repository, sign, add a signer, revoke, rotate, renew, pin.
func TestTrustOnRepositories(t *testing.T) {
	r := newTrustRoom(t)
	image := r.repository + ":v1"
	out, errs := done(t, "trust", "sign", image, "--init", "ci")
	r.want("output of sign", out, "Signed "+image+" as "+r.digest+" for ci, releases\n")
	if !strings.Contains(errs, "Back up the root key now") {
		t.Errorf("got %q on stderr, want a word on the backup of the root key", errs)
	}
	rows, state := r.inspect()
	r.want("signed tags", rows, "v1 "+r.digest+" ci released")
	if len(state.Warnings) > 0 || len(state.Administrative) != 5 {
		t.Errorf("got warnings %q and %d administrative roles, want none and 5", state.Warnings,
			len(state.Administrative))
	}

	done(t, "trust", "key", "generate", "qa")
	done(t, "trust", "signer", "add", "qa", r.repository, "--key", "qa.pub")
	out, _ = done(t, "trust", "sign", image, "--role", "qa")
	r.want("output of sign --role", out, "Signed "+image+" as "+r.digest+" for qa\n")
	rows, _ = r.inspect()
	r.want("signed tags after qa", rows, "v1 "+r.digest+" ci,qa released")

	out, _ = done(t, "trust", "revoke", image, "--dry-run")
	if !strings.Contains(out, "Would remove v1 from targets/ci\n") {
		t.Errorf("got %q of revoke --dry-run, want what it would remove", out)
	}
	rows, _ = r.inspect()
	r.want("signed tags after the dry run", rows, "v1 "+r.digest+" ci,qa released")
	done(t, "trust", "revoke", image, "--role", "qa")
	rows, _ = r.inspect()
	r.want("signed tags after qa revoked", rows, "v1 "+r.digest+" ci released")

	for _, role := range []string{"targets", "snapshot", "timestamp", "root"} {
		done(t, "trust", "key", "rotate", r.repository, role)
	}
	out, _ = done(t, "trust", "renew", r.repository)
	r.want("output of renew", out, "Nothing of "+r.repository+" expires within 4320h0m0s\n")
	out, _ = done(t, "trust", "renew", r.repository, "--within", "100000h")
	if !strings.Contains(out, "sign root anew") || !strings.Contains(out, "sign targets/ci anew") {
		t.Errorf("got %q of renew, want root and targets/ci renewed", out)
	}
	done(t, "trust", "signer", "remove", "qa", r.repository)
	rows, state = r.inspect()
	r.want("signed tags at the end", rows, "v1 "+r.digest+" ci released")
	if len(state.Signers) != 1 {
		t.Errorf("got signers %v, want ci alone", state.Signers)
	}
	text, _ := done(t, "trust", "inspect", image)
	for _, want := range []string{
		"Signatures for " + r.repository, "Signers and their keys", "Administrative keys", "v1 ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got %q of inspect, want %q in it", text, want)
		}
	}
}

// A digest is signed as it is given, and a tag that differs is a warning.
func TestTrustSignDigest(t *testing.T) {
	r := newTrustRoom(t)
	later := r.push("v1")
	out, errs := done(t, "trust", "sign", r.repository+":v1", "--digest", r.digest, "--init", "ci")
	if !strings.Contains(out, r.digest) || !strings.Contains(errs, "warning: the tag v1 has the digest "+later) {
		t.Errorf("got %q and %q, want the given digest signed, and a warning of the tag's", out, errs)
	}
}

// A pipeline without the root key is told to give --root. With another root it fails.
func TestThreatNoTrustOnFirstUse(t *testing.T) {
	r := newTrustRoom(t)
	done(t, "trust", "sign", r.repository+":v1", "--init", "ci")
	pin, _ := done(t, "trust", "pin", r.repository, "-o", "json")
	var shown notarysign.Shown
	if err := json.Unmarshal([]byte(pin), &shown); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "trust")
	code, _, errs := command(t, "trust", "inspect", r.repository, "-d", other)
	if code != exitError || !strings.Contains(errs, "give the key ID that its publisher tells you with --root") {
		t.Errorf("without a known root: got exit code %d and %q, want %d and advice", code, errs, exitError)
	}
	code, _, errs = command(t, "trust", "inspect", r.repository, "-d", other, "--root", strings.Repeat("ab", 32))
	if code != exitError || !strings.Contains(errs, "not signed by a pinned root key") {
		t.Errorf("with another root: got exit code %d and %q, want %d and a root not pinned", code, errs, exitError)
	}
	done(t, "trust", "inspect", r.repository, "-d", other, "--root", shown.Keys[0].ID)
}

// The manifest of "trust pin" is one that an API server accepts.
func TestTrustPinManifest(t *testing.T) {
	kube := kubeserver.Run(t, kubeserver.Options{})
	r := newTrustRoom(t)
	done(t, "trust", "sign", r.repository+":v1", "--init", "ci")
	manifest, _ := done(t, "trust", "pin", r.repository, "--name", "acme")
	if !strings.Contains(manifest, "compare each key ID") {
		t.Errorf("got %q, want a word on comparing the key ID", manifest)
	}
	var object unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(kube.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	strict := client.WithFieldValidation(c, "Strict")
	if err := strict.Create(t.Context(), &object); err != nil {
		t.Errorf("got %v from the API server, want the TrustRoot created", err)
	}
	ids, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "notary", "root", "keyIDs")
	if object.GetKind() != "TrustRoot" || len(ids) != 1 {
		t.Errorf("got kind %s with key IDs %q, want a TrustRoot with one", object.GetKind(), ids)
	}
}

// Bad input is one line that says what to do, and changes nothing.
func TestTrustBadInput(t *testing.T) {
	r := newTrustRoom(t)
	missing := r.repository + ":v1"
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no repository":    {[]string{"trust", "sign", missing}, "make it with --init"},
		"no tag":           {[]string{"trust", "sign", r.repository}, "name the tag to sign"},
		"no image":         {[]string{"trust", "sign", r.repository + ":v9", "--init", "ci"}, "push the image first"},
		"no digest":        {[]string{"trust", "sign", missing, "--digest", "sha256:12"}, "is not a digest"},
		"reserved signer":  {[]string{"trust", "sign", missing, "--init", "releases"}, "choose another"},
		"no public key":    {[]string{"trust", "signer", "add", "ci", r.repository}, "--key FILE.pub"},
		"no server":        {[]string{"trust", "sign", missing, "-s", "https://localhost:1"}, "connection was refused"},
		"no root":          {[]string{"trust", "inspect", missing, "--root", "none"}, "neither a key ID"},
		"revoke all":       {[]string{"trust", "revoke", r.repository}, "--all"},
		"repository's tag": {[]string{"trust", "pin", missing}, "without a tag"},
		"unknown role":     {[]string{"trust", "key", "rotate", r.repository, "qa"}, "no trust data"},
		"no CA": {
			[]string{"trust", "inspect", missing, "-s", strings.Replace(r.server.URL, "localhost", "127.0.0.1", 1)},
			"--server-ca",
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := command(t, c.args...)
			if code != exitError || out != "" || !strings.Contains(errs, c.want) || strings.Count(errs, "\n") != 1 {
				t.Errorf("got exit code %d, %q, %q, want %d and one line with %q", code, out, errs, exitError, c.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(r.dir, "private")); err == nil {
		t.Error("a failed command left a key in the trust directory")
	}
}
