package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// completer is the file by which kubectl completes the arguments of the plugin.
const completer = "kubectl_complete-countersign"

// commandPlatforms are the platforms of the command line.
func commandPlatforms() []string {
	return []string{
		"darwin/amd64", "darwin/arm64", "linux/amd64", "linux/arm64", "windows/amd64", "windows/arm64",
	}
}

type archiveOptions struct {
	root, dist string
	version    string // empty: the version from git
	platforms  []string
}

// archived is one archive of the command line.
type archived struct {
	os, arch, file string
	sum            [sha256.Size]byte
}

// buildArchives builds the command line for each platform, and packs each binary with its licenses
// and the script for completion. The manifest for krew, the plugin manager of kubectl, names the
// archives and their checksums. All files depend only on the sources, not on this machine.
func buildArchives(ctx context.Context, o archiveOptions) error {
	if o.version != "" && !versions.MatchString(o.version) {
		return fmt.Errorf("version %q is not of the form v1.2.3 or v1.2.3-rc.1", o.version)
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	if err := errors.Join(settleEnvironment(root), os.MkdirAll(o.dist, 0o755)); err != nil {
		return err
	}
	source, err := readCheckout(ctx, root)
	if err != nil {
		return err
	}
	var all []archived
	for _, platform := range o.platforms {
		goos, arch, ok := strings.Cut(platform, "/")
		if !ok || goos == "" || arch == "" {
			return fmt.Errorf("platform %q is not of the form linux/amd64", platform)
		}
		fmt.Fprintf(os.Stderr, "Building %s for %s.\n", commandName, platform)
		files, err := commandFiles(ctx, root, goos, arch, o.version)
		if err != nil {
			return err
		}
		a := archived{os: goos, arch: arch, file: fmt.Sprintf("%s-%s-%s.tar.gz", commandName, goos, arch)}
		pack := packTar
		if goos == "windows" {
			a.file, pack = strings.TrimSuffix(a.file, ".tar.gz")+".zip", packZip
		}
		content, err := pack(files, source.created)
		if err != nil {
			return fmt.Errorf("packing %s: %w", a.file, err)
		}
		a.sum = sha256.Sum256(content)
		if err := os.WriteFile(filepath.Join(o.dist, a.file), content, 0o644); err != nil {
			return err
		}
		all = append(all, a)
	}
	manifest, err := yaml.Marshal(krewManifest(o.version, all))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.dist, "countersign-krew.yaml"), manifest, 0o644)
}

// commandFiles returns the files of an archive: the binary, the licenses, and the script by which
// kubectl completes arguments.
func commandFiles(ctx context.Context, root, goos, arch, version string) ([]packed, error) {
	folder, err := os.MkdirTemp("", "countersign-command-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	binary := filepath.Join(folder, commandName)
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", strings.Join(linkerFlags(version), " "), "-o", binary,
		command().folder)
	build.Dir, build.Env, build.Stderr = root, append(os.Environ(), "GOOS="+goos, "GOARCH="+arch), os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("building %s for %s/%s: %w", commandName, goos, arch, err)
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	included, err := licenses(ctx, root, command(), []string{goos + "/" + arch})
	if err != nil {
		return nil, err
	}
	if goos == "windows" {
		return append([]packed{{commandName + ".exe", text}}, included...), nil
	}
	script := "#!/bin/sh\n# kubectl runs this to complete the arguments of \"kubectl countersign\".\n" +
		"exec kubectl countersign __complete \"$@\"\n"
	return append([]packed{{commandName, text}, {completer, []byte(script)}}, included...), nil
}

// mode returns the permissions of a file in an archive.
func (f packed) mode() os.FileMode {
	if strings.Contains(f.name, "/") {
		return 0o644
	}
	return 0o755 // the programs
}

func packTar(files []packed, created time.Time) ([]byte, error) {
	var content bytes.Buffer
	zipped := gzip.NewWriter(&content)
	w := tar.NewWriter(zipped)
	for _, f := range files {
		if f.text == nil {
			continue // a folder
		}
		err := w.WriteHeader(&tar.Header{
			Name: f.name, Typeflag: tar.TypeReg, Mode: int64(f.mode()), Size: int64(len(f.text)), ModTime: created,
			Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = w.Write(f.text)
		}
		if err != nil {
			return nil, err
		}
	}
	err := errors.Join(w.Close(), zipped.Close())
	return content.Bytes(), err
}

func packZip(files []packed, created time.Time) ([]byte, error) {
	var content bytes.Buffer
	w := zip.NewWriter(&content)
	for _, f := range files {
		if f.text == nil {
			continue // a folder
		}
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: created}
		header.SetMode(f.mode())
		to, err := w.CreateHeader(header)
		if err == nil {
			_, err = to.Write(f.text)
		}
		if err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return content.Bytes(), err
}
