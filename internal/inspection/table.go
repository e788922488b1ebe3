package inspection

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/countersign-dev/countersign/internal/text"
)

// none is the cell of a role that has not signed.
const none = "-"

// Write writes the repository as tables: a row for each image with a column for each role, and a
// row for each key. The roles that are expected have a column even where none has signed.
func (r *Repository) Write(w io.Writer, roles []string) error {
	fmt.Fprintf(w, "%s\n\n", r.Name)
	if err := r.writeImages(w, r.columns(roles)); err != nil {
		return err
	}
	if err := r.writeKeys(w); err != nil {
		return err
	}
	for _, root := range r.Roots {
		for _, fault := range root.Faults {
			fmt.Fprintf(w, "could not check: TrustRoot %q: %s\n", root.Name, text.Line(fault))
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", text.Line(note))
	}
	return nil
}

// columns returns the expected roles and those that have signed, sorted.
func (r *Repository) columns(roles []string) []string {
	all := map[string]bool{}
	for _, role := range roles {
		all[role] = true
	}
	for _, image := range r.Images {
		for _, s := range image.Signatures {
			all[s.Role] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func (r *Repository) writeImages(w io.Writer, roles []string) error {
	if len(r.Images) == 0 {
		_, err := fmt.Fprintln(w, "no images")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(append([]string{"TAG", "DIGEST"}, upper(roles)...), "\t"))
	var rejected []string
	for _, image := range r.Images {
		cells := []string{orNone(text.Line(image.Tag)), orNone(text.Line(image.Digest))}
		for _, role := range roles {
			cells = append(cells, orNone(strings.Join(image.Formats(role), ",")))
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
		for _, why := range image.Rejected {
			rejected = append(rejected, text.Line(fmt.Sprintf("does not count for %s: %s", name(image), why)))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, line := range rejected {
		fmt.Fprintln(w, line)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// writeKeys writes the keys of all signatures, each once.
func (r *Repository) writeKeys(w io.Writer) error {
	rows := map[string]bool{}
	for _, image := range r.Images {
		for _, s := range image.Signatures {
			for _, key := range s.Keys {
				seen := day(key.FirstSeen)
				if key.New {
					seen += " (NEW)"
				}
				row := []string{text.Line(s.Role), s.Format, s.TrustRoot, text.Line(key.ID), seen, day(s.NotAfter)}
				rows[strings.Join(row, "\t")] = true
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ROLE\tFORMAT\tTRUSTROOT\tKEY OR IDENTITY\tFIRST SEEN\tEXPIRES")
	for _, row := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintln(table, row)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// Formats returns the formats in which a role has signed the image, sorted.
func (i *Image) Formats(role string) []string {
	formats := map[string]bool{}
	for _, s := range i.Signatures {
		if s.Role == role {
			formats[s.Format] = true
		}
	}
	return slices.Sorted(maps.Keys(formats))
}

// WriteSummary writes one row for each repository, with a column for each role: how many of its
// images the role has signed in each format. So a team sees what is left to move.
func WriteSummary(w io.Writer, all []Repository, roles []string) error {
	columns := map[string]bool{}
	for i := range all {
		for _, role := range all[i].columns(roles) {
			columns[role] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(columns))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(append([]string{"REPOSITORY", "IMAGES"}, upper(sorted)...), "\t"))
	for i := range all {
		r := &all[i]
		cells := []string{r.Name, fmt.Sprint(len(r.Images))}
		for _, role := range sorted {
			cells = append(cells, r.share(role))
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

// share says how many images a role has signed in each format: "Notary 3, Sigstore 1".
func (r *Repository) share(role string) string {
	counts := map[string]int{}
	for i := range r.Images {
		for _, format := range r.Images[i].Formats(role) {
			counts[format]++
		}
	}
	parts := make([]string, 0, len(counts))
	for _, format := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", format, counts[format]))
	}
	return orNone(strings.Join(parts, ", "))
}

func upper(all []string) []string {
	cells := make([]string, 0, len(all))
	for _, s := range all {
		cells = append(cells, strings.ToUpper(text.Line(s)))
	}
	return cells
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

// name names an image in a line about it.
func name(i Image) string {
	if i.Tag == "" {
		return i.Digest
	}
	return i.Tag
}

// day returns a date; "-" where there is none.
func day(t *time.Time) string {
	if t == nil {
		return none
	}
	return t.UTC().Format(time.DateOnly)
}
