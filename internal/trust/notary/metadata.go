package notary

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	maxTimestampSize = 512 << 10
	maxSnapshotSize  = 512 << 10
	maxRootSize      = 512 << 10
	// maxChainSize bounds the total size of the roots from a pinned or known one to the newest.
	maxChainSize = 1 << 20
	// maxFileSize bounds targets.json and the file of one delegation.
	maxFileSize = 8 << 20
	// maxTotalSize bounds the total size of targets and delegations of one repository.
	maxTotalSize = 16 << 20
	// evidenceSize is the memory that evidence takes beside its statements and files, in bytes. It
	// includes some delegations.
	evidenceSize = 4 << 10
	// keySize is the memory of a key ID, and of a seenVersion beside its keys, in bytes.
	keySize = 128
	// maxSeenVersions bounds the seen versions, which include roles that the server no longer
	// lists.
	maxSeenVersions = 256
)

// files are the raw bytes of verified metadata. They suffice to verify it again without a network.
type files struct {
	// roots is the chain of root files from the pinned one to the newest.
	roots [][]byte
	// others holds timestamp, snapshot, targets and the delegations, by role.
	others map[string][]byte
}

// seenVersion is the last seen version of a role's file. An older file is a rollback.
type seenVersion struct {
	version int64
	// digest is the SHA-256 of the signed part. A version is published once; an added signature
	// does not change the digest.
	digest [sha256.Size]byte
	// keys are the canonical IDs of the keys that may sign the file.
	keys []string
	// listed reports that the snapshot listed the role.
	listed bool
}

// metadata verifies the files of one repository in the order of trust, from the root down. Each
// method takes the raw bytes of the next file and returns the files that may be requested after it.
// It does no I/O. After a failed method it must not be used.
type metadata struct {
	rootVerifier
	lastSeen      map[string]seenVersion // of the previous evidence; nil without one
	seen          map[string]seenVersion // versions for the new evidence
	chain         []*rootFile
	raw           files
	timestamp     *envelope
	snapshot      *envelope
	listed        map[string]fileMeta
	verified      map[string]*signedTargets
	seenExpired   []string          // delegations that were never seen valid: they have no grace
	files         []trust.File      // delegations that a role may count
	rejected      []rejectedTarget  // signed targets that prove no role
	rejectedFiles map[string]string // by delegation: why its file does not count
	delegations   []string          // names of all delegations
}

func newMetadata(rules rootVerifier, floors map[string]seenVersion) *metadata {
	rules.usedKeys = map[string]bool{}
	return &metadata{
		rootVerifier: rules, lastSeen: floors, seen: map[string]seenVersion{},
		raw: files{others: map[string][]byte{}}, verified: map[string]*signedTargets{},
	}
}

// fault adds the repository and the file to an error. The default reason is MetadataInvalid.
func fault(repository, file string, err error) *trust.Fault {
	f := trust.AsFault(err, v1alpha1.ReasonMetadataInvalid)
	return trust.NewFault(f.Reason, "%s: %s.json %w", repository, file, err)
}

// loadRoots verifies the chain of roots. trusted is as in verifyChain.
func (m *metadata) loadRoots(roots [][]byte, trusted int) error {
	chain := make([]*rootFile, len(roots))
	for i, raw := range roots {
		var err error
		if chain[i], err = decodeRoot(raw); err != nil {
			return fault(m.repository, rootRole, fmt.Errorf("is unusable: %w", err))
		}
	}
	chain, err := m.verifyChain(chain, trusted)
	if err != nil {
		return fault(m.repository, rootRole, err)
	}
	m.chain = chain
	for _, f := range chain {
		m.raw.roots = append(m.raw.roots, f.raw)
	}
	newest := m.newest()
	if err := m.checkRollback(rootRole, newest.envelope, newest.roles[rootRole]); err != nil {
		return fault(m.repository, rootRole, err)
	}
	return nil
}

func (m *metadata) newest() *rootFile { return m.chain[len(m.chain)-1] }

// checkRollback refuses a verified file that is older than the last seen one, or differs from it
// under the same version. After all keys of a role are replaced, its versions start again: no older
// file can be signed by the new keys. That is the way back from a fast-forward attack, where a
// stolen key set a version too high.
func (m *metadata) checkRollback(name string, e *envelope, r role) error {
	current := seenVersion{version: e.version, digest: e.digest, keys: r.canonical(), listed: true}
	m.seen[name] = current
	last, ok := m.lastSeen[name]
	if !ok || name != rootRole && !overlap(last.keys, current.keys) {
		return nil
	}
	if current.version < last.version {
		return trust.NewFault(v1alpha1.ReasonRollback,
			"is version %d, and version %d was seen before; the server offers old metadata", current.version,
			last.version)
	}
	if current.version == last.version && current.digest != last.digest {
		return trust.NewFault(v1alpha1.ReasonRollback,
			"is version %d with other content than was seen under that version before", current.version)
	}
	return nil
}

func (r role) canonical() []string {
	var ids []string
	for _, k := range r.keys {
		ids = append(ids, k.canonical)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// loadTopLevel decodes and verifies timestamp.json, snapshot.json or targets.json. The file must be
// signed by the keys of its role in root, not expired, and no rollback.
func (m *metadata) loadTopLevel(name, typ string, raw []byte) (*envelope, []*publicKey, error) {
	e, err := decodeEnvelope(raw, typ)
	if err != nil {
		return nil, nil, fault(m.repository, name, fmt.Errorf("is unusable: %w", err))
	}
	r := m.newest().roles[name]
	signers, err := e.verify(r, m.counts)
	if err == nil {
		err = e.current(m.expiryCutoff())
	} else if revoked := m.revokedFile(name, e, r); revoked != nil {
		err = revoked
	}
	if err == nil {
		err = m.checkRollback(name, e, r)
	}
	if err != nil {
		return nil, nil, fault(m.repository, name, err)
	}
	m.raw.others[name] = raw
	return e, signers, nil
}

// loadTimestamp verifies timestamp.json and returns the length and hashes of the snapshot.
func (m *metadata) loadTimestamp(raw []byte) (fileMeta, error) {
	e, _, err := m.loadTopLevel(timestampRole, "Timestamp", raw)
	if err != nil {
		return fileMeta{}, err
	}
	m.timestamp = e
	metas, err := e.signed.Object("meta")
	if err != nil {
		return fileMeta{}, fault(m.repository, timestampRole, err)
	}
	meta, err := decodeMeta(metas.Get(snapshotRole))
	if err == nil {
		err = checkLength(snapshotRole, meta, maxSnapshotSize)
	}
	if err != nil {
		return fileMeta{}, fault(m.repository, timestampRole, fmt.Errorf("entry %s: %w", snapshotRole, err))
	}
	return meta, nil
}

// checkLength returns a fault if the listed length of a file exceeds the limit.
func checkLength(name string, meta fileMeta, limit int64) error {
	if meta.length > limit {
		return trust.NewFault(v1alpha1.ReasonTooLarge, "lists %s with %d bytes, more than the %d that are read", name,
			meta.length, limit)
	}
	return nil
}

// loadSnapshot verifies snapshot.json and returns the lengths and hashes of targets and the
// delegations. Their names have passed the naming rule. The snapshot must list the verified root
// (mix-and-match).
func (m *metadata) loadSnapshot(raw []byte, meta fileMeta) (map[string]fileMeta, error) {
	if err := meta.check(raw); err != nil {
		return nil, fault(m.repository, snapshotRole, err)
	}
	e, _, err := m.loadTopLevel(snapshotRole, "Snapshot", raw)
	if err != nil {
		return nil, err
	}
	m.snapshot = e
	if m.listed, err = decodeSnapshot(e.signed); err != nil {
		return nil, fault(m.repository, snapshotRole, err)
	}
	root, ok := m.listed[rootRole]
	if !ok {
		return nil, fault(m.repository, snapshotRole, errors.New("does not list root"))
	}
	if err := root.check(m.newest().raw); err != nil {
		return nil, fault(m.repository, rootRole, fmt.Errorf("is not the one that snapshot.json lists: %w", err))
	}
	delete(m.listed, rootRole)
	if _, ok := m.listed[targetsRole]; !ok {
		return nil, fault(m.repository, snapshotRole,
			trust.NewFault(v1alpha1.ReasonMetadataMissing, "does not list targets"))
	}
	return m.listed, nil
}

func decodeSnapshot(signed canonicaljson.Object) (map[string]fileMeta, error) {
	metas, err := signed.Object("meta")
	if err != nil {
		return nil, err
	}
	listed := map[string]fileMeta{}
	var total int64
	for key, v := range metas.Members() {
		if len(listed) == maxRoles+2 {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "lists more than the %d roles that are read",
				maxRoles+2)
		}
		name, _ := key.Text()
		if name != rootRole && name != targetsRole {
			if err := checkDelegation(name); err != nil {
				return nil, fmt.Errorf("lists an invalid role: %w", err)
			}
		}
		meta, err := decodeMeta(v)
		if err != nil {
			return nil, fmt.Errorf("entry %s: %w", name, err)
		}
		if err := checkLength(name, meta, maxFileSize); err != nil {
			return nil, err
		}
		listed[name] = meta
		total += meta.length
	}
	if total > maxTotalSize {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge,
			"lists files of %d bytes together, more than the %d that are read", total, maxTotalSize)
	}
	return listed, nil
}

// expiry returns when the first top-level file or root certificate expires, and its file.
func (m *metadata) expiry() (time.Time, string) {
	end, file := m.newest().expires, rootRole
	for _, next := range []struct {
		at   time.Time
		file string
	}{
		{m.certificateExpiry(m.chain), rootRole},
		{m.timestamp.expires, timestampRole},
		{m.snapshot.expires, snapshotRole},
		{m.verified[targetsRole].expires, targetsRole},
	} {
		if next.at.Before(end) {
			end, file = next.at, next.file
		}
	}
	return end, file + ".json"
}

// anchors returns the pinned keys that the verified roots list as root keys, sorted.
func (m *metadata) anchors() []string {
	var ids []string
	for _, f := range m.chain {
		for _, k := range f.roles[rootRole].keys {
			if m.pins[k.canonical] && !slices.Contains(ids, k.canonical) {
				ids = append(ids, k.canonical)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// finish returns the evidence once all files are loaded. raw is the same files, packed. If it is
// nil, finish packs them.
func (m *metadata) finish(raw *packed) *evidence {
	for name, f := range m.lastSeen {
		if _, ok := m.seen[name]; !ok && len(m.seen) < maxSeenVersions {
			f.listed = false
			m.seen[name] = f
		}
	}
	ev := &evidence{
		root: m.Root, repository: m.repository, seen: m.seen, usedKeys: slices.Sorted(maps.Keys(m.usedKeys)), raw: raw,
	}
	ev.notAfter, ev.file = m.expiry()
	ev.files, ev.seenExpired = m.datedFiles(), m.seenExpired
	ev.anchors = m.anchors()
	stated := m.statements()
	ev.statements = newStatementIndex(stated)
	ev.size = ev.statements.size()
	ev.setRejected(m.rejectedTargets(stated), m.rejectedFiles, m.delegations)
	if ev.raw == nil {
		ev.raw = m.pack(m.raw)
	}
	ev.size += evidenceSize + int64(cap(ev.raw.data)) + int64(len(ev.usedKeys)+len(ev.anchors))*keySize
	for _, f := range ev.seen {
		ev.size += int64(1+len(f.keys)) * keySize
	}
	ev.timestamp = sha256.Sum256(m.raw.others[timestampRole])
	return ev
}
