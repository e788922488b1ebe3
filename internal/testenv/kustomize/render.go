// Package kustomize renders config/ as a user would apply it.
package kustomize

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/internal/testenv/build"
	"github.com/countersign-dev/countersign/internal/testenv/process"
)

// Overlay is an overlay of config/.
type Overlay struct {
	// Base is the folder of config/ to render. Empty: default.
	Base string
	// Image is the reference of the operator's image. Empty: the image of the manifests.
	Image string
	// Components are folders of config/components.
	Components []string
}

// Render returns the YAML documents of config/ as a user would apply them. It runs kubectl, and
// builds it if needed.
func Render(ctx context.Context, progress io.Writer, o Overlay) ([]byte, error) {
	root, err := build.ModuleRoot()
	if err != nil {
		return nil, err
	}
	if err := touch(filepath.Join(root, "config")); err != nil {
		return nil, err
	}
	kube, err := build.Kube(ctx, progress, "kubectl")
	if err != nil {
		return nil, err
	}
	// An overlay may only use relative paths. So it lies in the repository, in a folder that git
	// ignores.
	if err := os.MkdirAll(filepath.Join(root, "dist"), 0o755); err != nil {
		return nil, fmt.Errorf("making dist: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "dist"), ".overlay-")
	if err != nil {
		return nil, fmt.Errorf("making an overlay of config: %w", err)
	}
	defer os.RemoveAll(dir)
	kustomization, err := yaml.Marshal(o.kustomization())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), kustomization, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, kube.Kubectl, "kustomize", dir)
	process.Tie(cmd)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("rendering config with kubectl kustomize: %w\n%s", err, problems.Bytes())
	}
	return out.Bytes(), nil
}

// touch opens every file below a folder. Go test reruns a cached test if a file that the test
// opened has changed; it does not see the files that kubectl opens.
func touch(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("reading config: %w", err)
		}
		return f.Close()
	})
}

func (o Overlay) kustomization() map[string]any {
	base := o.Base
	if base == "" {
		base = "default"
	}
	k := map[string]any{
		"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
		"resources": []string{"../../config/" + base},
	}
	var components []string
	for _, c := range o.Components {
		components = append(components, "../../config/components/"+c)
	}
	if components != nil {
		k["components"] = components
	}
	if o.Image != "" {
		k["images"] = []map[string]string{imageOverlay(o.Image)}
	}
	return k
}

// imageOverlay returns the kustomize entry that replaces the image of the manifests.
func imageOverlay(ref string) map[string]string {
	image := map[string]string{"name": "countersign"}
	name, digest, pinned := strings.Cut(ref, "@")
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		image["newTag"] = name[i+1:]
		name = name[:i]
	}
	image["newName"] = name
	if pinned {
		image["digest"] = digest
	}
	return image
}
