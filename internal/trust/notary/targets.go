package notary

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxDelegations bounds the delegations that one file lists. Most have no file: of the files,
	// maxRoles are read for a repository.
	maxDelegations = 256
	// minEntrySize is the minimum size of a target with a sha256 hash, in bytes.
	minEntrySize = 80
	// maxPaths bounds the path prefixes of one delegation.
	maxPaths = 256
)

// signedTargets is a verified targets file: targets.json, or that of a delegation.
type signedTargets struct {
	name string
	// signers are the canonical IDs of the distinct authorized keys that signed it, sorted.
	signers []string
	// expires is the earliest expiry of the file and its ancestors.
	expires time.Time
	// paths are prefixes of the tags that it may sign, restricted by its ancestors.
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

// delegation is an entry of a targets file: keys, threshold and paths of a child.
type delegation struct {
	role
	name  string
	paths []string
}

// allows reports whether the file may sign a tag. Paths are string prefixes.
func (t *signedTargets) allows(tag string) bool {
	for _, p := range t.paths {
		if strings.HasPrefix(tag, p) {
			return true
		}
	}
	return false
}

// restrictPaths returns the paths of a child that begin with a path of the parent. As in other
// clients, a path of the child that is wider does not count; it is not shortened to the parent's.
func restrictPaths(parent, child []string) []string {
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

// loadTargets verifies targets.json and every delegation that the snapshot lists, by role. A
// targets.json that fails is a fault. A delegation that matches the snapshot but is expired,
// malformed or not signed by its keys has not signed. A delegation that does not match the snapshot
// is a fault: its signed content is unknown.
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

	// A child's name extends its parent's name, so there are no cycles. The snapshot bounds the
	// number and depth of the delegations.
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

// loadDelegation returns the verified file of a delegation, or nil if it has not signed.
func (m *metadata) loadDelegation(parent *signedTargets, d delegation, raw map[string][]byte) (*signedTargets, error) {
	if _, ok := m.listed[d.name]; !ok {
		return nil, m.checkDropped(parent, d)
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
	t.signers, t.expires, t.paths = canonicalIDs(signers), earliest(e.expires, parent.expires),
		restrictPaths(parent.paths, d.paths)
	return t, nil
}

// signedDelegation decodes the file of a delegation. It returns nil if the keys of the delegation
// have not signed it. The error means that the file exceeds a bound.
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

// beyondBounds returns the error of a delegation's file that exceeds a bound: its content is
// unknown. It returns nil for a malformed file: that has not signed.
func beyondBounds(err error) error {
	if f, ok := errors.AsType[*trust.Fault](err); ok && f.Reason == v1alpha1.ReasonTooLarge {
		return err
	}
	return nil
}

// checkDropped refuses a snapshot that no longer lists a delegation that it listed before, unless
// the parent's file has changed: an administrator who removes a delegation changes that file.
func (m *metadata) checkDropped(parent *signedTargets, d delegation) error {
	last, ok := m.lastSeen[d.name]
	if ok && last.listed && overlap(last.keys, d.canonical()) &&
		m.lastSeen[parent.name].digest == m.seen[parent.name].digest {
		return trust.NewFault(v1alpha1.ReasonRollback,
			"is no longer listed by snapshot.json, though version %d was seen before and its delegation stands",
			last.version)
	}
	return nil
}

// decodeTargets reads the targets and the delegations of a targets file.
func decodeTargets(name string, e *envelope) (*signedTargets, error) {
	t := &signedTargets{name: name}
	entries, err := e.signed.OptionalObject("targets")
	if err != nil {
		return nil, err
	}
	if entries != nil {
		t.targets = make([]target, 0, min(entries.Size(), len(entries)/minEntrySize))
	}
	for key, v := range entries.Members() {
		length, h, err := decodeHashes(v)
		if err != nil {
			return nil, fmt.Errorf("target %.80s: %w", key, err)
		}
		// Image digests are sha256, so a target with only a sha512 hash is skipped. A target whose
		// name is not a valid tag is skipped too: a statement with an empty tag would mean any tag.
		if !h.has256 || len(key) > maxTag+2 {
			continue
		}
		if tag, _ := key.Text(); tagName.MatchString(tag) {
			t.targets = append(t.targets, target{tag: tag, digest: h.sha256, length: length})
		}
	}
	t.delegations, err = decodeDelegations(name, e.signed)
	return t, err
}

// decodeDelegations reads the delegations of a targets file with their keys.
func decodeDelegations(parent string, signed canonicaljson.Object) ([]delegation, error) {
	block, err := signed.OptionalObject("delegations")
	if err != nil || block == nil {
		return nil, err
	}
	list, err := block.OptionalList("roles")
	if err != nil {
		return nil, fmt.Errorf("delegations: %w", err)
	}
	var all []delegation
	var entries []roleEntry
	names := map[string]bool{}
	for v := range list.Elements() {
		if len(all) == maxDelegations {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "has more than the %d delegations that are read",
				maxDelegations)
		}
		d, l, err := decodeDelegation(parent, v)
		if err != nil {
			return nil, err
		}
		if names[d.name] {
			return nil, fmt.Errorf("delegation %s occurs twice", d.name)
		}
		names[d.name] = true
		all, entries = append(all, d), append(entries, l)
	}
	keys, err := decodeKeys(block, maxFileKeys, entries...)
	if err != nil {
		return nil, fmt.Errorf("delegations: %w", err)
	}
	for i := range all {
		all[i].role = entries[i].role(keys)
	}
	return all, nil
}

// decodeDelegation reads a delegation without its keys. Their IDs are in the roleEntry.
func decodeDelegation(parent string, v canonicaljson.Value) (delegation, roleEntry, error) {
	var d delegation
	o, ok := v.Object()
	if !ok {
		return d, roleEntry{}, errors.New("a delegation is not an object")
	}
	var err error
	if d.name, err = o.Text("name"); err != nil {
		return d, roleEntry{}, fmt.Errorf("a delegation: %w", err)
	}
	if !delegationName.MatchString(d.name) || path.Dir(d.name) != parent {
		return d, roleEntry{}, fmt.Errorf("%.80q is not the name of a delegation of %s", d.name, parent)
	}
	l, err := decodeRoleEntry(o)
	if err == nil {
		d.paths, err = o.Texts("paths", maxPaths)
	}
	if errors.Is(err, canonicaljson.ErrTooMany) {
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
