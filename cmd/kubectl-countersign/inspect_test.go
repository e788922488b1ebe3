package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/signers"
)

// runInspect runs inspect with a file of seen keys, and returns its exit code and streams.
func runInspect(t *testing.T, policies, seen string, args ...string) (code int, out, errs string) {
	t.Helper()
	streams, _, stdout, stderr := genericiooptions.NewTestIOStreams()
	all := append([]string{"inspect", "--policies", policies, "--seen-keys", seen}, args...)
	code = run(t.Context(), all, streams)
	return code, stdout.String(), stderr.String()
}

// inspect shows each tag of a repository with the roles that signed it, in a format that signs tags
// and in one that signs digests. It marks a key as new that a known repository did not have.
func TestInspect(t *testing.T) {
	t.Parallel()
	b := newBed(t, signers.Notary, signers.Sigstore)
	dir, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen.json")
	host := b.registry.Host
	writeObjects(t, dir, "policies.yaml", b.root(signers.Notary), b.root(signers.Sigstore),
		imagePolicy("all", v1alpha1.ImagePolicySpec{
			Images:        []v1alpha1.ImagePattern{v1alpha1.ImagePattern(host + "/acme/**")},
			TrustRoots:    []v1alpha1.ObjectName{"notary", "sigstore"},
			RequiredRoles: []v1alpha1.RoleRequirement{{Role: "ci"}, {Role: "qa"}},
		}))
	for format, name := range map[string]string{signers.Notary: "Notary", signers.Sigstore: "Sigstore"} {
		code, out, errs := runInspect(t, dir, seen, host+"/acme/"+format, "-o", "json")
		if code != exitDone {
			t.Fatalf("%s: got exit code %d, %s, want %d", format, code, errs, exitDone)
		}
		var got struct{ Repositories []inspected }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		signed := map[string][]string{}
		for _, image := range got.Repositories[0].Images {
			if image.Digest == b.images[format][image.Tag].Digest {
				signed[image.Tag] = []string{}
			}
			for _, s := range image.Signatures {
				signed[image.Tag] = append(signed[image.Tag], s.Role+" by "+s.Format)
			}
		}
		for tag, want := range map[string][]string{
			both: {"ci by " + name, "qa by " + name}, onlyCI: {"ci by " + name}, none: {},
		} {
			if got, ok := signed[tag]; !ok || !slices.Equal(got, want) {
				t.Errorf("%s: tag %s: got %v, want %v", format, tag, got, want)
			}
		}
	}
	code, out, errs := runInspect(t, dir, seen, "--summary", host+"/acme/notary", host+"/acme/sigstore")
	if code != exitDone || !strings.Contains(out, "Notary 2") || !strings.Contains(out, "Sigstore 1") {
		t.Errorf("summary: got exit code %d, %s, %s, want Notary 2 and Sigstore 1 in it", code, out, errs)
	}
	if strings.Contains(errs, "never seen") {
		t.Errorf("got %q, want no new key", errs)
	}
	newKey(t, b, dir, seen)
}

// newKey signs one image with a key that the repository did not have, of another format.
func newKey(t *testing.T, b *bed, dir, seen string) {
	t.Helper()
	image := b.images[signers.Notary][none]
	if err := b.signers[signers.Sigstore].Sign(t.Context(), "qa", image); err != nil {
		t.Fatal(err)
	}
	repository := b.registry.Host + "/acme/notary"
	code, out, errs := runInspect(t, dir, seen, repository+":"+none)
	if code != exitDone || !strings.Contains(errs, "never seen before") || !strings.Contains(errs, repository) {
		t.Errorf("got exit code %d, stderr %q, want a warning of a new key", code, errs)
	}
	if !strings.Contains(out, "(NEW)") || !strings.Contains(out, "Sigstore") {
		t.Errorf("got %s, want the key of Sigstore marked as new", out)
	}
	if _, _, errs = runInspect(t, dir, seen, repository+":"+none); strings.Contains(errs, "never seen") {
		t.Errorf("second run: got %q, want no new key", errs)
	}
}

// What inspect cannot use is one line that says what to do.
func TestInspectBadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeObjects(t, dir, "policies.yaml", imagePolicy("all", v1alpha1.ImagePolicySpec{
		Images: []v1alpha1.ImagePattern{"registry.example.com/**"}, AllowUnsigned: new(true),
	}))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no image":           {[]string{"--policies", dir}, "requires at least 1 arg"},
		"unparsable image":   {[]string{"--policies", dir, "registry.example.com/UPPER"}, "UPPER"},
		"unknown trust root": {[]string{"--policies", dir, "a/b", "--trust-root", "acme"}, `no TrustRoot "acme"`},
		"no tags":            {[]string{"--policies", dir, "a/b", "--max-tags", "0"}, "--max-tags"},
	} {
		t.Run(name, func(t *testing.T) {
			streams, _, out, errs := genericiooptions.NewTestIOStreams()
			code := run(t.Context(), append([]string{"inspect"}, c.args...), streams)
			if code != exitError || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
				t.Errorf("got exit code %d, %q, %q, want %d and %q on stderr", code, out, errs, exitError, c.want)
			}
		})
	}
}
