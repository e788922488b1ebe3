package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const image = "registry.example.com/countersign@sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

// The order of components does not matter: the ServiceMonitor always expects the certificate that
// the manager serves.
func TestComponentsInAnyOrder(t *testing.T) {
	files := map[string][]byte{}
	for _, components := range []string{"prometheus,openshift", "openshift,prometheus"} {
		out := filepath.Join(t.TempDir(), "install.yaml")
		if err := run(t.Context(),
			[]string{"--image=" + image, "--components=" + components, "--out=" + out}); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(content, []byte("image: "+image+"\n")) {
			t.Errorf("%s: got a manifest without image %s", components, image)
		}
		files[components] = content
	}
	if !bytes.Equal(files["prometheus,openshift"], files["openshift,prometheus"]) {
		t.Error("got different manifests for the two orders, want the same")
	}
}

// Every role has the field rules. The API accepts a role without it, but linters report such a role
// as one that allows everything.
func TestEachRoleNamesItsRules(t *testing.T) {
	out := filepath.Join(t.TempDir(), "install.yaml")
	if err := run(t.Context(),
		[]string{"--image=" + image, "--components=prometheus,openshift", "--out=" + out}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	roles := 0
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		if !strings.Contains(document, "\nkind: ClusterRole\n") && !strings.Contains(document, "\nkind: Role\n") {
			continue
		}
		roles++
		if !strings.Contains(document, "\nrules:") {
			t.Errorf("got a role without rules:\n%s", document)
		}
	}
	if roles < 4 {
		t.Errorf("got %d roles, want at least 4", roles)
	}
}

func TestManifestsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct{ args, want string }{
		"no image": {"--components=prometheus", "name the operator's image"},
		"two certificates": {
			"--image=x --components=cert-manager,openshift", "each provide a serving certificate",
		},
		"unknown component": {"--image=x --components=promtheus", "config/components/promtheus"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "install.yaml")
			if err := run(t.Context(), append(strings.Fields(tt.args), "--out="+out)); err == nil ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("got a file, want none")
			}
		})
	}
}
