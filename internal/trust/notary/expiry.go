package notary

import (
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
)

// isCurrent reports whether a delegation is not expired. A delegation that was once seen valid may
// be expired by up to the grace. A delegation that is refused is recorded in seenExpired, so that a
// later grace does not make it count.
func (m *metadata) isCurrent(name string, e *envelope) bool {
	if e.current(m.at) == nil {
		m.seenExpired = slices.DeleteFunc(m.seenExpired, func(expired string) bool { return expired == name })
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

// datedFiles returns every file that the evidence depends on, with its expiry. A Notary server
// signs the timestamp again by itself. For the snapshot this is unknown: the metadata does not say
// whether the server or an administrator holds its key.
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
