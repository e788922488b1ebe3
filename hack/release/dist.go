package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// sumsFile lists the checksums in the format of sha256sum.
const sumsFile = "sha256sums.txt"

// finish replaces each folder in dist by an archive, because a release offers single files, and
// writes the checksums of all files. The archives depend only on the contents and on created, not
// on this machine.
func finish(dist, version string, created time.Time) error {
	entries, err := os.ReadDir(dist)
	if err != nil {
		return fmt.Errorf("reading the built files: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		folder := filepath.Join(dist, e.Name())
		archive, err := pack(folder, created)
		if err != nil {
			return fmt.Errorf("packing %s: %w", folder, err)
		}
		name := fmt.Sprintf("countersign-%s-%s.tar.gz", e.Name(), strings.TrimPrefix(version, "v"))
		if err := errors.Join(os.WriteFile(filepath.Join(dist, name), archive, 0o644),
			os.RemoveAll(folder)); err != nil {
			return err
		}
	}
	return writeSums(dist)
}

// pack returns a gzipped tar of a folder, with the files sorted by name.
func pack(folder string, created time.Time) ([]byte, error) {
	var archive bytes.Buffer
	zip := gzip.NewWriter(&archive)
	w := tar.NewWriter(zip)
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is no plain file", path)
		}
		name, err := filepath.Rel(filepath.Dir(folder), path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header := &tar.Header{
			Name: filepath.ToSlash(name), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), ModTime: created,
			Format: tar.FormatUSTAR,
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err := errors.Join(err, w.Close(), zip.Close()); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

func writeSums(dist string) error {
	entries, err := os.ReadDir(dist) // sorted
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.Name() == sumsFile {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dist, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(text), e.Name())
	}
	return os.WriteFile(filepath.Join(dist, sumsFile), []byte(sums.String()), 0o644)
}
