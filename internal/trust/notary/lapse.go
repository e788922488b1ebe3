package notary

import (
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
)

// lasts reports whether a delegation has not expired, or, where it was verified before it had, not
// by more than the grace. What has not is noted, so that no later grace revives what was never seen
// valid.
func (m *metadata) isCurrent(name string, e *envelope) bool {
	if e.current(m.at) == nil {
		m.seenExpired = slices.DeleteFunc(m.seenExpired, func(lapsed string) bool { return lapsed == name })
		return true
	}
	if slices.Contains(m.seenExpired, name) {
		return false
	}
	if m.grace > 0 && e.current(m.expiryCutoff()) == nil {
		return true
	}
	at, _ := slices.BinarySearch(m.seenExpired, name)
	m.seenExpired = slices.Insert(m.seenExpired, at, name)
	return false
}

// dated returns every file that the evidence rests on. A Notary server signs the timestamp anew by
// itself. Of the snapshot nobody can tell: its key may be the server's or an administrator's, and
// the metadata does not say.
func (m *metadata) datedFiles() []trust.File {
	files := []trust.File{
		{
			Name: rootRole + ".json", Kind: rootRole,
			NotAfter: earliest(m.newest().expires, m.certificateExpiry(m.chain)),
		},
		{Name: timestampRole + ".json", Kind: timestampRole, NotAfter: m.timestamp.expires, Unattended: true},
		{Name: snapshotRole + ".json", Kind: snapshotRole, NotAfter: m.snapshot.expires},
		{Name: targetsRole + ".json", Kind: targetsRole, NotAfter: m.verified[targetsRole].expires},
	}
	slices.SortFunc(m.files, func(a, b trust.File) int { return strings.Compare(a.Name, b.Name) })
	return slices.Concat(files, m.files)
}
