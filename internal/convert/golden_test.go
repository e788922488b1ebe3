package convert

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update rewrites the expected files and the tables of docs/convert.md:
//
//	go test ./internal/convert -update
var update = flag.Bool("update", false, "write the expected files anew")

// golden returns the cases of testdata: each folder has the files of one conversion.
func golden(t *testing.T) map[string][]File {
	t.Helper()
	folders, err := filepath.Glob("testdata/*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("got no cases: %v", err)
	}
	cases := map[string][]File{}
	for _, folder := range folders {
		cases[filepath.Base(folder)] = filesOf(t, folder)
	}
	return cases
}

// filesOf reads the files of a folder that are not expectations.
func filesOf(t *testing.T, folder string) []File {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var all []File
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), "want") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, File{Name: e.Name(), Data: data})
	}
	return all
}

// convertCase converts a case of testdata.
func convertCase(t *testing.T, name string, files []File) *Result {
	t.Helper()
	options := Options{}
	if registries := filepath.Join("testdata", name, "registries.d"); exists(registries) {
		options.RegistriesD = filesOf(t, registries)
	}
	r, err := Convert(files, options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func TestGolden(t *testing.T) {
	for name, files := range golden(t) {
		t.Run(name, func(t *testing.T) {
			r := convertCase(t, name, files)
			var out, notes bytes.Buffer
			if err := r.Write(&out, "yaml"); err != nil {
				t.Fatal(err)
			}
			for _, n := range r.Notes {
				notes.WriteString(n.String() + "\n")
			}
			for file, got := range map[string]string{"want.yaml": out.String(), "want.txt": notes.String()} {
				path := filepath.Join("testdata", name, file)
				if *update {
					if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", path, diff)
				}
			}
		})
	}
}
