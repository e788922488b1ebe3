package inspection

import (
	"strings"
	"testing"
	"time"
)

// shown is a repository with each kind of row.
func shown() Repository {
	day := time.Date(2026, 3, 1, 23, 0, 0, 0, time.UTC)
	key := []Key{{ID: "k1", FirstSeen: &day}}
	return Repository{
		Name: "registry.example.com/acme/app", Notes: []string{"2 further tags are not shown"},
		Roots: []Root{
			{Name: "dct", Format: "Notary"},
			{Name: "gone", Format: "Sigstore", Faults: []string{"the server is down"}},
		},
		Images: []Image{
			{Tag: "v1", Digest: "sha256:1", Signatures: []Signature{
				{Role: "ci", TrustRoot: "dct", Format: "Notary", Keys: key, NotAfter: &day},
				{Role: "ci", TrustRoot: "cosign", Format: "Sigstore", Keys: []Key{{ID: "k2", New: true}}},
			}},
			{Tag: "v2", Digest: "sha256:2", Rejected: []string{"k3 signed for another repository"},
				Signatures: []Signature{
					{Role: "ci", TrustRoot: "dct", Format: "Notary", Keys: key, NotAfter: &day},
				}},
			{Tag: "v3"},
		},
	}
}

// fields returns the cells of each line.
func fields(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// The tables have a column for a role that has not signed, a row for each key once, and name what
// could not be checked.
func TestWrite(t *testing.T) {
	for name, tt := range map[string]struct {
		repository Repository
		roles      []string
		want       string
	}{
		"rows": {shown(), []string{"qa"}, `registry.example.com/acme/app

TAG DIGEST CI QA
v1 sha256:1 Notary,Sigstore -
v2 sha256:2 Notary -
v3 - - -
does not count for v2: k3 signed for another repository

ROLE FORMAT TRUSTROOT KEY OR IDENTITY FIRST SEEN EXPIRES
ci Notary dct k1 2026-03-01 2026-03-01
ci Sigstore cosign k2 - (NEW) -

could not check: TrustRoot "gone": the server is down
note: 2 further tags are not shown`},
		"no images": {Repository{Name: "a/b"}, nil, "a/b\n\nno images"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := tt.repository.Write(&out, tt.roles); err != nil {
				t.Fatal(err)
			}
			if got := fields(out.String()); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// A summary counts each image once for each format, and has the roles of all repositories.
func TestWriteSummary(t *testing.T) {
	var out strings.Builder
	err := WriteSummary(&out, []Repository{shown(), {Name: "registry.example.com/acme/web"}}, []string{"qa"})
	if err != nil {
		t.Fatal(err)
	}
	want := `REPOSITORY IMAGES CI QA
registry.example.com/acme/app 3 Notary 2, Sigstore 1 -
registry.example.com/acme/web 0 - -`
	if got := fields(out.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// One root with a fault makes the repository faulty, whatever the others found.
func TestFaulty(t *testing.T) {
	r := shown()
	if !r.Faulty() {
		t.Error("got no fault, want that of the trust root gone")
	}
	r.Roots[1].Faults = nil
	if r.Faulty() {
		t.Error("got a fault, want none")
	}
}
