package notary

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// ErrUnsigned is the error of Read for a repository without trust data.
var ErrUnsigned = errors.New("the Notary server has no trust data of this repository")

// Contents are the verified files of a repository, for a program that edits and publishes them.
type Contents struct {
	// Roots are the root files from a pinned one to the newest.
	Roots [][]byte
	// Files are timestamp, snapshot, targets and the delegations that the snapshot lists, by role.
	Files map[string][]byte
	// Rejected says why the file of a delegation does not count. It may lack valid signatures.
	Rejected map[string]string
	// Versions are the versions of the files, and those seen before, for the next Read.
	Versions []byte
}

// Read fetches a repository and verifies it from a pinned root down. Files that have expired for
// less than the given time count, so that they can be renewed. seen are the Versions of the last
// Read, if any: it is a fault if the server has older files. The error satisfies errors.Is(err,
// ErrUnsigned), or is a *trust.Fault.
func (r *Root) Read(ctx context.Context, repository string, expired time.Duration, seen []byte) (*Contents, error) {
	if err := checkRepository(repository); err != nil {
		return nil, err
	}
	floors, err := decodeVersions(seen)
	if err != nil {
		return nil, err
	}
	s := &session{
		rootVerifier: rootVerifier{Root: r, repository: repository, at: r.now(), grace: max(expired, 0)},
		previous:     &evidence{root: r, repository: repository, seen: floors}, fetched: map[string][]byte{},
	}
	ev, err := s.fetchNew(ctx)
	switch {
	case err != nil:
		return nil, trust.AsFault(err, v1alpha1.ReasonUnreachable)
	case ev == nil:
		return nil, ErrUnsigned
	}
	f, err := ev.raw.unpack(isAny)
	if err != nil {
		return nil, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	}
	versions, err := json.Marshal(packVersions(ev.seen))
	if err != nil {
		return nil, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	}
	return &Contents{Roots: f.roots, Files: f.others, Rejected: ev.rejectedFiles, Versions: versions}, nil
}

// decodeVersions decodes the Versions of Contents. Without any it returns nil.
func decodeVersions(text []byte) (map[string]seenVersion, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var packed map[string]packedVersion
	err := json.Unmarshal(text, &packed)
	var seen map[string]seenVersion
	if err == nil {
		seen, err = readVersions(packed)
	}
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"reading the versions that were seen before: %w", err)
	}
	return seen, nil
}
