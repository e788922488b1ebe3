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

// files are the files of a chart by their paths in it.
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
		return nil, fmt.Errorf("reading what the chart is made of: %w", err)
	}
	return read, nil
}

// write makes dir hold these files and nothing else.
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

// archive writes the package that helm installs from. It is the same for the same files, which
// helm's own packaging does not make it: that writes the time down.
func (f files) archive(path string) error {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	packed := tar.NewWriter(zipped)
	// Helm wants Chart.yaml nowhere in particular; people who list an archive want it first.
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

// fill puts values in the place of ${name}, each of which is all that a key has. Every value must
// have its place, and every place its value.
func fill(text []byte, values map[string]any) ([]byte, error) {
	left := maps.Clone(values)
	var missing []string
	filled := regexp.MustCompile(`(?m)^( *)(\w+): \$\{([\w.]+)\}$`).ReplaceAllStringFunc(string(text),
		func(line string) string {
			rest := strings.TrimLeft(line, " ")
			indent := strings.TrimSuffix(line, rest)
			key, place, _ := strings.Cut(rest, ": ")
			name := strings.Trim(place, "${}")
			value, ok := values[name]
			if !ok {
				missing = append(missing, name)
				return line
			}
			delete(left, name)
			entry, err := yaml.Marshal(map[string]any{key: value})
			if err != nil {
				missing = append(missing, name)
				return line
			}
			return indent + strings.ReplaceAll(strings.TrimSuffix(string(entry), "\n"), "\n", "\n"+indent)
		})
	if len(missing) > 0 || len(left) > 0 {
		return nil, fmt.Errorf("no value for the places of %q, no place for the values of %q", missing,
			slices.Sorted(maps.Keys(left)))
	}
	return []byte(filled), nil
}
