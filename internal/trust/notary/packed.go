package notary

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/jsonscan"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// packedFormat identifies the output of Pack and its version.
	packedFormat = "countersign notary 1"
	// maxPackedHeader bounds the header, in bytes: names, sizes and seen versions.
	maxPackedHeader = 2 << 20
	// maxHeaderValues bounds the JSON values of the header. Most are keys of the seen versions.
	maxHeaderValues = maxSeenVersions*(maxKeys+5) + maxPackedRoots + 4*maxRoles
	// maxPackedRoots bounds the chain of roots, which grows with each root rotation.
	maxPackedRoots = 1024
	// maxUnpackedSize bounds the total size of all files of a repository.
	maxUnpackedSize = maxTotalSize + maxSnapshotSize + maxTimestampSize + maxChainSize
)

// packedHeader is the first line of a packed record. The compressed files follow it, in the order
// of Sizes.
type packedHeader struct {
	Format      string                   `json:"format"`
	Repository  string                   `json:"repository"`
	Names       []string                 `json:"names"`
	Sizes       []int                    `json:"sizes"`
	Seen        map[string]packedVersion `json:"seen"`
	SeenExpired []string                 `json:"lapsed,omitempty"`
}

// packedVersion is a stored seenVersion. It is not signed. An attacker who can write it can block a
// repository, but cannot lower a version that this process has seen.
type packedVersion struct {
	Version int64    `json:"version"`
	Digest  string   `json:"digest"`
	Keys    []string `json:"keys"`
	Listed  bool     `json:"listed,omitempty"`
}

// Pack implements trust.Keeper. A repository has one subject.
func (r *Root) Pack(previous map[trust.Subject]trust.Evidence) ([]byte, error) {
	if len(previous) > 1 {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"the evidence is of several repositories, so it is not stored")
	}
	for _, evidence := range previous {
		return r.packOne(evidence)
	}
	return nil, nil
}

// packOne returns a record of the signed files and the seen versions.
func (r *Root) packOne(previous trust.Evidence) ([]byte, error) {
	if _, unsigned := previous.(trust.Unsigned); unsigned || previous == nil {
		return nil, nil
	}
	ev, ok := previous.(*evidence)
	if !ok || ev == nil || ev.raw == nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"the evidence is not of this format, so it is not stored")
	}
	h := packedHeader{
		Format: packedFormat, Repository: ev.repository, Names: ev.raw.names, Sizes: ev.raw.sizes,
		Seen: packVersions(ev.seen), SeenExpired: ev.seenExpired,
	}
	line, err := json.Marshal(h)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: packing the verified metadata: %w",
			ev.repository, err)
	}
	return slices.Concat(line, []byte("\n"), ev.raw.data), nil
}

// Unpack implements trust.Keeper.
func (r *Root) Unpack(repository trust.Subject, data []byte,
	previous map[trust.Subject]trust.Evidence) (map[trust.Subject]trust.Evidence, error) {
	evidence, err := r.unpackOne(repository.Repository, data, previous[repository])
	if evidence == nil {
		return nil, err
	}
	return map[trust.Subject]trust.Evidence{repository: evidence}, err
}

// unpackOne verifies a record and merges it with the previous evidence. If the record does not
// verify, its seen versions still count, unless no pinned key signed its root.
func (r *Root) unpackOne(repository string, data []byte, previous trust.Evidence) (trust.Evidence, error) {
	if err := checkRepository(repository); err != nil {
		return nil, err
	}
	saved, err := readPacked(repository, data)
	if err != nil {
		return nil, trust.NewFault(v1alpha1.ReasonMetadataInvalid, "%s: the stored record is unusable: %w",
			repository, err)
	}
	base, err := r.previousEvidence(repository, previous)
	if err != nil {
		return nil, err
	}
	floors, raised := mergeVersions(base.seen, saved.seen, r.provenVersions(saved, base.seen))
	if base.raw != nil && !raised {
		return base, nil
	}
	saved.seen = floors
	checked, err := r.recheck(saved)
	if err == nil {
		return checked, nil
	}
	if trust.AsFault(err, v1alpha1.ReasonMetadataInvalid).Reason == v1alpha1.ReasonRootNotPinned {
		return nil, err // another root of trust: nothing of the record counts
	}
	if base.raw != nil {
		kept := &evidence{repository: repository, raw: base.raw, seen: floors, seenExpired: base.seenExpired}
		if kept, errKept := r.recheck(kept); errKept == nil {
			return kept, nil
		}
	}
	return saved, trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
}

// provenVersions returns the versions that the files of a record prove, or nil if they do not
// verify. It verifies the files only if the record claims that all keys of a role were replaced.
func (r *Root) provenVersions(saved *evidence, ours map[string]seenVersion) map[string]seenVersion {
	for name, f := range saved.seen {
		if own, ok := ours[name]; ok && name != rootRole && !overlap(own.keys, f.keys) {
			if checked, err := r.recheck(&evidence{repository: saved.repository, raw: saved.raw}); err == nil {
				return checked.seen
			}
			break
		}
	}
	return nil
}

// readPacked reads a record of Pack, within bounds. The result is not verified and has no
// statements.
func readPacked(repository string, data []byte) (*evidence, error) {
	end := bytes.IndexByte(data[:min(len(data), maxPackedHeader)], '\n')
	if end < 0 {
		return nil, fmt.Errorf("no header of at most %d bytes", maxPackedHeader)
	}
	if values, ok := jsonscan.Count(data[:end], maxHeaderValues); !ok || values == maxHeaderValues {
		return nil, fmt.Errorf("the header is not JSON with fewer than %d values", maxHeaderValues)
	}
	var h packedHeader
	if err := json.Unmarshal(data[:end], &h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	switch {
	case h.Format != packedFormat:
		return nil, fmt.Errorf("format %.80q is not %q; another version or another program wrote it",
			h.Format, packedFormat)
	case h.Repository != repository:
		return nil, fmt.Errorf("it is a record of %.80q", h.Repository)
	}
	files := data[end+1:]
	if err := checkSizes(h.Names, h.Sizes, len(files)); err != nil {
		return nil, err
	}
	floors, err := readVersions(h.Seen)
	if err != nil {
		return nil, err
	}
	return &evidence{
		repository: repository, seen: floors, known: true, seenExpired: h.SeenExpired,
		raw: &packed{names: h.Names, sizes: h.Sizes, data: files}, size: evidenceSize + int64(cap(data)),
	}, nil
}

// checkSizes checks the sizes in the header, and the compressed size, against the bounds. Files
// that do not compress grow only a little.
func checkSizes(names []string, sizes []int, compressed int) error {
	roots := len(sizes) - len(names)
	if roots < 1 || roots > maxPackedRoots || len(names) > maxRoles+3 {
		return fmt.Errorf("%d files with %d names", len(sizes), len(names))
	}
	total := 0
	for _, size := range sizes {
		if size < 0 || size > maxFileSize {
			return fmt.Errorf("a file of %d bytes", size)
		}
		total += size
	}
	if total > maxUnpackedSize {
		return fmt.Errorf("files of %d bytes together, more than the %d that are read", total, maxUnpackedSize)
	}
	if compressed > total+total/64+1024 {
		return fmt.Errorf("%d bytes of files that have %d bytes together", compressed, total)
	}
	return nil
}

func packVersions(seen map[string]seenVersion) map[string]packedVersion {
	all := map[string]packedVersion{}
	for name, f := range seen {
		all[name] = packedVersion{
			Version: f.version, Digest: hex.EncodeToString(f.digest[:]), Keys: f.keys, Listed: f.listed,
		}
	}
	return all
}

func readVersions(seen map[string]packedVersion) (map[string]seenVersion, error) {
	if len(seen) > maxSeenVersions {
		return nil, fmt.Errorf("versions of %d roles, more than the %d that are remembered", len(seen), maxSeenVersions)
	}
	floors := make(map[string]seenVersion, len(seen))
	for name, s := range seen {
		if !slices.Contains([]string{rootRole, timestampRole, snapshotRole, targetsRole}, name) {
			if err := checkDelegation(name); err != nil {
				return nil, fmt.Errorf("version seen: %w", err)
			}
		}
		f := seenVersion{version: s.Version, keys: s.Keys, listed: s.Listed}
		digest, err := hex.DecodeString(s.Digest)
		if err != nil || len(digest) != len(f.digest) {
			return nil, fmt.Errorf("version seen of %.80q: the digest is not one", name)
		}
		copy(f.digest[:], digest)
		floors[name] = f
	}
	return floors, nil
}

// mergeVersions merges our seen versions with those of a record, and reports whether ours have
// changed. The higher version of each role counts. If all keys of a role were replaced, the version
// of the later keys counts, but only if signed files prove the replacement.
func mergeVersions(ours, theirs, proven map[string]seenVersion) (joined map[string]seenVersion, raised bool) {
	joined = maps.Clone(ours)
	if joined == nil {
		joined = map[string]seenVersion{}
	}
	later := isLater(ours, proven)
	fromRecord := map[string]bool{}
	for name, f := range theirs {
		own, ok := ours[name]
		switch {
		case !ok:
			fromRecord[name] = len(joined) < maxSeenVersions
		case name == rootRole || overlap(own.keys, f.keys):
			fromRecord[name] = f.version > own.version
		default:
			signed, ok := proven[name]
			fromRecord[name] = later && ok && f.version >= signed.version && overlap(f.keys, signed.keys)
		}
		if fromRecord[name] {
			joined[name] = f
		}
	}
	// That a delegation is listed counts only together with the parent file with which it was seen.
	for name, f := range joined {
		from := ours
		if fromRecord[name] {
			from = theirs
		}
		if parent := path.Dir(name); f.listed && strings.HasPrefix(name, targetsRole+"/") &&
			joined[parent].digest != from[parent].digest {
			f.listed = false
			joined[name] = f
		}
	}
	return joined, !maps.EqualFunc(ours, joined, sameVersion)
}

// isLater reports whether theirs were seen under a later root than ours or, with equal roots, under
// a later targets file.
func isLater(ours, theirs map[string]seenVersion) bool {
	if a, b := ours[rootRole].version, theirs[rootRole].version; a != b {
		return b > a
	}
	return theirs[targetsRole].version > ours[targetsRole].version
}

func sameVersion(a, b seenVersion) bool {
	return a.version == b.version && a.digest == b.digest && a.listed == b.listed && slices.Equal(a.keys, b.keys)
}
