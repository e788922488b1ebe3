package tufrepo

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
)

// State is the verified metadata of a repository at one time. It is immutable and safe for
// concurrent use. Refresh and Unpack make it, and Load adds delegated files.
type State struct {
	roots     []*rootFile // from the pinned one to the newest
	timestamp *timestampFile
	snapshot  *snapshotFile
	targets   *targetsFile
	files     map[string]*targetsFile // loaded delegated files, by role; each is the listed one
	edges     map[edge]verdict
	// changed are the versions of delegated files whose entry in the snapshot has changed, and that
	// are not loaded again yet.
	changed map[string]seen
	// failed says why the last Load could not load files, by role.
	failed map[string]*trust.Fault
	// expired says that the metadata has expired: it proves nothing, and remembers the versions.
	expired bool
}

// seen is a version of a file that was verified, and the digest of its signed content.
type seen struct {
	version int64
	digest  [sha256.Size]byte
}

// edge is a delegation: an index of the delegations of a file, or the number of a bin.
type edge struct {
	from  *targetsFile
	index uint32
}

// verdict is what verifying the file of a delegation came to.
type verdict struct {
	to     *targetsFile // nil: it has not signed
	keys   []Key
	why    string // if it has not signed
	listed meta   // the entry of the snapshot; the zero value: none
}

// root returns the newest root.
func (s *State) root() *rootFile { return s.roots[len(s.roots)-1] }

// Expiry returns when the first top-level file expires, and its name. Delegated files expire on
// their own.
func (s *State) Expiry() (notAfter time.Time, file string) {
	for _, f := range s.TopLevel() {
		if notAfter.IsZero() || f.NotAfter.Before(notAfter) {
			notAfter, file = f.NotAfter, f.Name
		}
	}
	return notAfter, file
}

// TopLevel returns the top-level files in the order of trust.
func (s *State) TopLevel() []trust.File {
	return []trust.File{
		{Name: rootRole + ".json", NotAfter: s.root().expires, Kind: rootRole},
		{Name: timestampRole + ".json", NotAfter: s.timestamp.expires, Kind: timestampRole},
		{Name: snapshotRole + ".json", NotAfter: s.snapshot.expires, Kind: snapshotRole},
		{Name: targetsRole + ".json", NotAfter: s.targets.expires, Kind: targetsRole},
	}
}

// delegated returns the expiry of a loaded delegated file.
func (f *targetsFile) delegated() trust.File {
	return trust.File{Name: f.name + ".json", NotAfter: f.expires, Part: true, Kind: delegationKind}
}

// check returns a fault if a State is another client's, which may have verified it under another
// pinned root.
func (c *Client) check(s *State) error {
	if s == nil || s.roots[0] == c.pin {
		return nil
	}
	return c.fault("root.json", errors.New("the metadata was verified by another client; Recheck it"))
}

// checkExpiry returns a fault if a top-level file has expired at the cutoff.
func (c *Client) checkExpiry(s *State, cutoff time.Time) error {
	for _, next := range []struct {
		name string
		f    *file
	}{
		{rootRole, &s.root().file}, {timestampRole, &s.timestamp.file},
		{snapshotRole, &s.snapshot.file}, {targetsRole, &s.targets.file},
	} {
		if err := next.f.checkExpiry(cutoff); err != nil {
			return c.fault(next.name+".json", err)
		}
	}
	return nil
}

// Versions are the versions of the top-level files.
type Versions struct{ Root, Timestamp, Snapshot, Targets int64 }

// Versions returns the versions of the top-level files.
func (s *State) Versions() Versions {
	return Versions{
		Root: s.root().version, Timestamp: s.timestamp.version, Snapshot: s.snapshot.version,
		Targets: s.targets.version,
	}
}

// Size returns an upper bound of the memory in bytes.
func (s *State) Size() int64 {
	const perEntry, perTarget, perDelegation = 256, 320, 512
	size := int64(perEntry * (4 + len(s.edges) + len(s.changed) + len(s.snapshot.listed)))
	for _, r := range s.roots {
		size += 3 * int64(len(r.raw))
	}
	size += int64(len(s.timestamp.raw) + 2*len(s.snapshot.raw))
	add := func(f *targetsFile) {
		size += 3*int64(len(f.raw)) + perTarget*int64(len(f.targets)) + perDelegation*int64(len(f.delegations))
	}
	add(s.targets)
	for _, f := range s.files {
		add(f)
	}
	return size
}

// loadedSize returns the number and the bytes of the delegated files.
func (s *State) loadedSize() (files int, size int64) {
	for _, f := range s.files {
		size += int64(len(f.raw))
	}
	return len(s.files), size
}
