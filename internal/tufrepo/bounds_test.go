package tufrepo

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// constant answers every request with the same bytes.
type constant []byte

func (c constant) Get(context.Context, string, int64) ([]byte, error) { return c, nil }

// The delegated files that a State holds are bounded in number and in bytes, however many bins a
// digest may be in. What is beyond has a fault.
func TestThreatTUFFilesBeyondTheBounds(t *testing.T) {
	const answer = 1 << 10
	for name, tt := range map[string]struct {
		files, size, want int
	}{
		"one file left":       {files: maxFiles - 1, want: 1},
		"no file left":        {files: maxFiles, want: 0},
		"bytes of three left": {files: 1, size: maxTotalSize - 3*answer, want: 3},
		"too few bytes left":  {files: 1, size: maxTotalSize - answer + 1, want: 0},
		"all is left":         {want: 4},
	} {
		s := &State{
			roots: []*rootFile{{}}, snapshot: &snapshotFile{listed: map[string]meta{}},
			files: map[string]*targetsFile{},
		}
		for i := range tt.files {
			s.files[fmt.Sprint("held-", i)] = &targetsFile{}
		}
		if tt.size > 0 {
			s.files["held-0"].raw = make([]byte, tt.size)
		}
		from := &targetsFile{bins: &bins{bits: 2, prefix: "bin"}}
		var edges []edge
		for i := range uint32(4) {
			edges = append(edges, edge{from: from, index: i})
			s.snapshot.listed[from.bins.name(i)] = meta{version: 1}
		}
		c := &Client{getter: constant(bytes.Repeat([]byte("x"), answer))}
		all, got := c.fetchFiles(t.Context(), s, nil, edges), 0
		for file, f := range all {
			switch reason := trust.AsFault(f.err, "").Reason; {
			case f.err == nil && len(f.raw) == answer:
				got++
			case f.err == nil || reason != v1alpha1.ReasonTooLarge || f.raw != nil:
				t.Errorf("%s, %s: got %d bytes and %v, want them, or TooLarge alone", name, file, len(f.raw), f.err)
			}
		}
		if len(all) != 4 || got != tt.want {
			t.Errorf("%s: got %d answers and %d files, want 4 and %d", name, len(all), got, tt.want)
		}
	}
}
