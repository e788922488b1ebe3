package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const image = "registry.example.com/countersign@sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

// The order in which components are named changes nothing: the ServiceMonitor expects the
// certificate that is served.
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
			t.Errorf("%s: the image is not in it", components)
		}
		files[components] = content
	}
	if !bytes.Equal(files["prometheus,openshift"], files["openshift,prometheus"]) {
		t.Error("the two orders differ")
	}
}

// The API takes a role without the field rules. Linters report such a role as one that allows
// everything.
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
			t.Errorf("a role has no rules:\n%s", document)
		}
	}
	if roles < 4 {
		t.Errorf("%d roles, want 4 or more", roles)
	}
}

func TestManifestsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct{ args, want string }{
		"no image": {"--components=prometheus", "name the operator's image"},
		"two certificates": {
			"--image=x --components=cert-manager,openshift", "each bring a serving certificate",
		},
		"a component that is none": {"--image=x --components=promtheus", "config/components/promtheus"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "install.yaml")
			if err := run(t.Context(), append(strings.Fields(tt.args), "--out="+out)); err == nil ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("it wrote a file")
			}
		})
	}
}
