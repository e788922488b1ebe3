package notary

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxDelegations bounds the delegations that one file lists. Most have signed nothing: of those
	// that have, maxRoles are read in a repository.
	maxDelegations = 256
	// leastEntry is how many bytes an entry with a sha256 hash has at least.
	leastEntry = 80
	// maxPaths bounds the path prefixes of one delegation.
	maxPaths = 256
)

// signedTargets is a verified targets file: of targets itself, or of a delegation.
type signedTargets struct {
	name string
	// signers are the canonical IDs of the distinct keys that signed it and may, sorted.
	signers []string
	// expires is the earliest expiry among the file and those of its ancestors.
	expires time.Time
	// paths are the prefixes of the tags it may speak about, narrowed by its ancestors.
	paths []string
	// targets are sorted by tag.
	targets     []target
	delegations []delegation
}

// target is the signed manifest of a tag.
type target struct {
	tag    string
	digest [sha256.Size]byte
	length int64
}

// delegation is what a targets file says about one of its children.
type delegation struct {
	role
	name  string
	paths []string
}

// allows reports whether the file may speak about a tag: paths are string prefixes.
func (t *signedTargets) allows(tag string) bool {
	for _, p := range t.paths {
		if strings.HasPrefix(tag, p) {
			return true
		}
	}
	return false
}

// narrowed returns the paths of a child of which a parent's path is a prefix. A child's path that
// is wider than its parent's is void, as clients of the format have it; it is not cut down to the
// parent's.
func narrowed(parent, child []string) []string {
	var out []string
	for _, c := range child {
		for _, p := range parent {
			if strings.HasPrefix(c, p) {
				out = append(out, c)
				break
			}
		}
	}
	return out
}

// loadTargets takes targets.json and every delegation that the snapshot lists, by role. A
// targets.json that fails is a fault. A delegation that is what the snapshot lists, and yet
// expired, not signed by its keys or malformed, has not signed; one that is not what the snapshot
// lists is a fault, since nobody can tell what it would have said.
func (m *metadata) loadTargets(raw map[string][]byte) error {
	for name, meta := range m.listed {
		if err := meta.check(raw[name]); err != nil {
			return fault(m.repository, name, err)
		}
		m.raw.others[name] = raw[name]
	}
	e, signers, err := m.loadTopLevel(targetsRole, "Targets", raw[targetsRole])
	if err != nil {
		return err
	}
	top, err := decodeTargets(targetsRole, e)
	if err != nil {
		return fault(m.repository, targetsRole, fmt.Errorf("is unusable: %w", err))
	}
	top.signers, top.expires, top.paths = canonicalIDs(signers), e.expires, []string{""}
	m.verified[targetsRole] = top

	// A child's name extends its parent's, so the walk ends: there are no cycles, and the snapshot
	// has bounded how many there are and how deep.
	for queue := []*signedTargets{top}; len(queue) > 0; queue = queue[1:] {
		parent := queue[0]
		for _, d := range parent.delegations {
			m.delegations = append(m.delegations, d.name)
			child, err := m.loadDelegation(parent, d, raw)
			if err != nil {
				return fault(m.repository, d.name, err)
			}
			if child != nil {
				m.verified[d.name] = child
				queue = append(queue, child)
			}
		}
	}
	return nil
}

// loadDelegation returns the file of a delegation, nil where it has not signed.
func (m *metadata) loadDelegation(parent *signedTargets, d delegation, raw map[string][]byte) (*signedTargets, error) {
	if _, ok := m.listed[d.name]; !ok {
		return nil, m.dropped(parent, d)
	}
	e, signers, err := m.signedDelegation(d, raw[d.name])
	if e == nil {
		return nil, err
	}
	if err := m.checkRollback(d.name, e, d.role); err != nil {
		return nil, err
	}
	if checkMappable(d.name) == nil {
		m.files = append(m.files, trust.File{
			Name: d.name + ".json", NotAfter: e.expires, Part: true, Kind: "delegation",
		})
	}
	if !m.isCurrent(d.name, e) {
		m.rejectFile(d.name, fmt.Sprintf("expired at %s; it must be signed anew", e.expires.Format(time.RFC3339)))
		return nil, nil
	}
	t, err := decodeTargets(d.name, e)
	if err != nil {
		m.rejectFile(d.name, fmt.Sprintf("is unusable: %v", err))
		return nil, beyondBounds(err)
	}
	t.signers, t.expires, t.paths = canonicalIDs(signers), earliest(e.expires, parent.expires), narrowed(parent.paths,
		d.paths)
	return t, nil
}

// signedDelegation decodes the file of a delegation. It is nil where its keys have not signed it.
// The error is that of a file beyond the bounds.
func (m *metadata) signedDelegation(d delegation, raw []byte) (e *envelope, signers []*publicKey, err error) {
	if e, err = decodeEnvelope(raw, "Targets"); err != nil {
		m.rejectFile(d.name, fmt.Sprintf("is unusable: %v", err))
		return nil, nil, beyondBounds(err)
	}
	if signers, err = e.verify(d.role, m.counts); err != nil {
		m.rejectFile(d.name, m.unsignedReason(e, d.role, err))
		return nil, nil, nil
	}
	return e, signers, nil
}

// beyondBounds returns the error of a delegation's file that is beyond the bounds: nobody can tell
// what it says. It is nil for a file that is malformed, which has not signed.
func beyondBounds(err error) error {
	if f, ok := errors.AsType[*trust.Fault](err); ok && f.Reason == v1alpha1.ReasonTooLarge {
		return err
	}
	return nil
}

// dropped refuses a snapshot that no longer lists a delegation it listed before, unless the parent
// has changed since: an administrator who removes a delegation, and perhaps adds it again, changes
// the parent.
func (m *metadata) dropped(parent *signedTargets, d delegation) error {
	held, ok := m.lastSeen[d.name]
	if ok && held.listed && overlap(held.keys, d.canonical()) &&
		m.lastSeen[parent.name].digest == m.seen[parent.name].digest {
		return trust.NewFault(v1alpha1.ReasonRollback,
			"is no longer listed by snapshot.json, though version %d was seen before and its delegation stands",
			held.version)
	}
	return nil
}

// decodeTargets reads the targets and the delegations of a targets file.
func decodeTargets(name string, e *envelope) (*signedTargets, error) {
	t := &signedTargets{name: name}
	entries, err := e.signed.optionalObject("targets")
	if err != nil {
		return nil, err
	}
	if entries != nil {
		t.targets = make([]target, 0, min(entries.size(), len(entries)/leastEntry))
	}
	for key, v := range entries.members() {
		length, h, err := decodeHashes(v)
		if err != nil {
			return nil, fmt.Errorf("target %.80s: %w", key, err)
		}
		// A digest is a sha256 one, so a target with none but a sha512 hash speaks for no image.
		// Nor does one whose name no tag can have, and a statement with an empty tag would say that
		// the digest is signed under any.
		if !h.has256 || len(key) > maxTag+2 {
			continue
		}
		if tag, _ := key.text(); tagName.MatchString(tag) {
			t.targets = append(t.targets, target{tag: tag, digest: h.sha256, length: length})
		}
	}
	t.delegations, err = decodeDelegations(name, e.signed)
	return t, err
}

func decodeDelegations(parent string, signed object) ([]delegation, error) {
	block, err := signed.optionalObject("delegations")
	if err != nil || block == nil {
		return nil, err
	}
	list, err := block.optionalList("roles")
	if err != nil {
		return nil, fmt.Errorf("delegations: %w", err)
	}
	var all []delegation
	var listings []roleEntry
	names := map[string]bool{}
	for v := range list.elements() {
		if len(all) == maxDelegations {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "has more than the %d delegations that are read",
				maxDelegations)
		}
		d, l, err := decodeDelegation(parent, v)
		if err != nil {
			return nil, err
		}
		if names[d.name] {
			return nil, fmt.Errorf("delegation %s is there twice", d.name)
		}
		names[d.name] = true
		all, listings = append(all, d), append(listings, l)
	}
	keys, err := decodeKeys(block, maxFileKeys, listings...)
	if err != nil {
		return nil, fmt.Errorf("delegations: %w", err)
	}
	for i := range all {
		all[i].role = listings[i].role(keys)
	}
	return all, nil
}

// decodeDelegation reads a delegation but for its keys, whose IDs are in the listing.
func decodeDelegation(parent string, v value) (delegation, roleEntry, error) {
	var d delegation
	o, ok := v.object()
	if !ok {
		return d, roleEntry{}, errors.New("a delegation is not an object")
	}
	var err error
	if d.name, err = o.text("name"); err != nil {
		return d, roleEntry{}, fmt.Errorf("a delegation: %w", err)
	}
	if !delegationName.MatchString(d.name) || path.Dir(d.name) != parent {
		return d, roleEntry{}, fmt.Errorf("%.80q is not the name of a delegation of %s", d.name, parent)
	}
	l, err := decodeRoleEntry(o)
	if err == nil {
		d.paths, err = o.texts("paths", maxPaths)
	}
	if errors.Is(err, errTooMany) {
		err = trust.NewFault(v1alpha1.ReasonTooLarge, "%w", err)
	}
	if err != nil {
		return d, l, fmt.Errorf("delegation %.80s: %w", d.name, err)
	}
	return d, l, nil
}

func canonicalIDs(keys []*publicKey) []string {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.canonical
	}
	return ids
}
