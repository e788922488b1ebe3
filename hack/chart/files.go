package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// files are the contents of a chart's files, by path.
type files map[string][]byte

func readFiles(dir string) (files, error) {
	read := make(files)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		read[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the hand-written part of the chart: %w", err)
	}
	return read, nil
}

// write replaces the contents of dir by these files.
func (f files) write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for path, text := range f {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// archive writes the archive that helm installs. Unlike helm package, it writes no timestamps, so
// the same files always give the same archive.
func (f files) archive(path string) error {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	packed := tar.NewWriter(zipped)
	// Helm accepts any order. Chart.yaml comes first for people who list the archive.
	names := slices.SortedFunc(maps.Keys(f), func(a, b string) int {
		if d := strings.Count(a, "/") - strings.Count(b, "/"); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		header := &tar.Header{
			Name: chartName + "/" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f[name])),
			ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		}
		if err := packed.WriteHeader(header); err != nil {
			return err
		}
		if _, err := packed.Write(f[name]); err != nil {
			return err
		}
	}
	if err := packed.Close(); err != nil {
		return err
	}
	if err := zipped.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// fill replaces each placeholder ${name} by the value of that name. A placeholder must be the whole
// value of a key. A placeholder without a value, or a value without a placeholder, is an error.
func fill(text []byte, values map[string]any) ([]byte, error) {
	unused := maps.Clone(values)
	var missing []string
	filled := regexp.MustCompile(`(?m)^( *)(\w+): \$\{([\w.]+)\}$`).ReplaceAllStringFunc(string(text),
		func(line string) string {
			rest := strings.TrimLeft(line, " ")
			indent := strings.TrimSuffix(line, rest)
			key, placeholder, _ := strings.Cut(rest, ": ")
			name := strings.Trim(placeholder, "${}")
			value, ok := values[name]
			if !ok {
				missing = append(missing, name)
				return line
			}
			delete(unused, name)
			entry, err := yaml.Marshal(map[string]any{key: value})
			if err != nil {
				missing = append(missing, name)
				return line
			}
			return indent + strings.ReplaceAll(strings.TrimSuffix(string(entry), "\n"), "\n", "\n"+indent)
		})
	if len(missing) > 0 || len(unused) > 0 {
		return nil, fmt.Errorf("placeholders without a value: %q, values without a placeholder: %q", missing,
			slices.Sorted(maps.Keys(unused)))
	}
	return []byte(filled), nil
}
