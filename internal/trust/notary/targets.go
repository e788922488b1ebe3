package notary

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// signedTargets is a verified targets file: of targets itself, or of a delegation.
type signedTargets struct {
	name string
	// signers are the canonical IDs of the distinct keys that signed it and may, sorted.
	signers []string
	// expires is the earliest expiry among the file and those of its ancestors.
	expires time.Time
	// paths are the prefixes of the tags it may speak about, narrowed by its ancestors.
	paths       []string
	targets     map[string]target
	delegations []delegation
}

// target is the signed manifest of a tag.
type target struct {
	digest string
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

// narrowed returns the paths of a child of which a parent's path is a prefix. A child's path that is wider than its
// parent's is void, as clients of the format have it; it is not cut down to the parent's.
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

// loadTargets takes targets.json and every delegation that the snapshot lists, by role. A targets.json that fails is a
// fault. A delegation that is what the snapshot lists, and yet expired, not signed by its keys or malformed, has not
// signed; one that is not what the snapshot lists is a fault, since nobody can tell what it would have said.
func (m *metadata) loadTargets(raw map[string][]byte) error {
	for name, meta := range m.listed {
		if err := meta.check(raw[name]); err != nil {
			return fault(m.repository, name, err)
		}
		m.raw.others[name] = raw[name]
	}
	e, signers, err := m.loadTop(targetsRole, "Targets", raw[targetsRole])
	if err != nil {
		return err
	}
	top, err := decodeTargets(targetsRole, e)
	if err != nil {
		return fault(m.repository, targetsRole, fmt.Errorf("is unusable: %w", err))
	}
	top.signers, top.expires, top.paths = canonicalIDs(signers), e.expires, []string{""}
	m.verified[targetsRole] = top

	// A child's name extends its parent's, so the walk ends: there are no cycles, and the snapshot has bounded how many
	// there are and how deep.
	for queue := []*signedTargets{top}; len(queue) > 0; queue = queue[1:] {
		parent := queue[0]
		for _, d := range parent.delegations {
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
	e, signers, ok := m.signedDelegation(d, raw[d.name])
	if !ok {
		return nil, nil
	}
	if err := m.admit(d.name, e, d.role); err != nil {
		return nil, err
	}
	if checkSpeaker(d.name) == nil {
		m.files = append(m.files, trust.File{Name: d.name + ".json", NotAfter: e.expires, Delegation: true})
	}
	if !m.lasts(d.name, e) {
		return nil, nil
	}
	if t, err := decodeTargets(d.name, e); err == nil {
		t.signers, t.expires, t.paths = canonicalIDs(signers), earliest(e.expires, parent.expires), narrowed(parent.paths, d.paths)
		return t, nil
	}
	return nil, nil
}

// signedDelegation decodes the file of a delegation, and reports whether its keys have signed it.
func (m *metadata) signedDelegation(d delegation, raw []byte) (e *envelope, signers []*publicKey, ok bool) {
	e, err := decodeEnvelope(raw, "Targets")
	if err != nil {
		return nil, nil, false
	}
	signers, err = e.verify(d.role, m.counts)
	return e, signers, err == nil
}

// dropped refuses a snapshot that no longer lists a delegation it listed before, unless the parent has changed since:
// an administrator who removes a delegation, and perhaps adds it again, changes the parent.
func (m *metadata) dropped(parent *signedTargets, d delegation) error {
	held, ok := m.floors[d.name]
	if ok && held.listed && overlap(held.keys, d.canonical()) && m.floors[parent.name].digest == m.seen[parent.name].digest {
		return trust.NewFault(v1alpha1.ReasonRollback, "is no longer listed by snapshot.json, though version %d was seen before and its delegation stands", held.version)
	}
	return nil
}

// decodeTargets reads the targets and the delegations of a targets file.
func decodeTargets(name string, e *envelope) (*signedTargets, error) {
	t := &signedTargets{name: name, targets: map[string]target{}}
	entries, err := optional[object](e.signed, "targets")
	if err != nil {
		return nil, err
	}
	for tag, v := range entries {
		meta, err := decodeMeta(v)
		if err != nil {
			return nil, fmt.Errorf("target %.80q: %w", tag, err)
		}
		// A digest is a sha256 one, so a target with none but a sha512 hash speaks for no image. Nor does one whose name
		// no tag can have, and a statement with an empty tag would say that the digest is signed under any.
		if meta.sha256 != nil && tagName.MatchString(tag) {
			t.targets[tag] = target{digest: "sha256:" + hex.EncodeToString(meta.sha256), length: meta.length}
		}
	}
	block, err := optional[object](e.signed, "delegations")
	if err != nil || block == nil {
		return t, err
	}
	keys, err := decodeKeys(block, "keys")
	if err != nil {
		return nil, fmt.Errorf("delegations: %w", err)
	}
	list, err := optional[[]any](block, "roles")
	if err != nil {
		return nil, fmt.Errorf("delegations: %w", err)
	}
	names := map[string]bool{}
	for _, v := range list {
		d, err := decodeDelegation(name, v, keys)
		if err != nil {
			return nil, err
		}
		if names[d.name] {
			return nil, fmt.Errorf("delegation %s is there twice", d.name)
		}
		names[d.name] = true
		t.delegations = append(t.delegations, d)
	}
	return t, nil
}

func decodeDelegation(parent string, v any, keys map[string]*publicKey) (delegation, error) {
	var d delegation
	o, ok := v.(object)
	if !ok {
		return d, errors.New("a delegation is not an object")
	}
	var err error
	if d.name, err = field[string](o, "name"); err != nil {
		return d, fmt.Errorf("a delegation: %w", err)
	}
	if !delegationName.MatchString(d.name) || path.Dir(d.name) != parent {
		return d, fmt.Errorf("%.80q is not the name of a delegation of %s", d.name, parent)
	}
	if d.role, err = decodeRole(o, keys); err != nil {
		return d, fmt.Errorf("delegation %s: %w", d.name, err)
	}
	if d.paths, err = texts(o, "paths"); err != nil {
		return d, fmt.Errorf("delegation %s: %w", d.name, err)
	}
	return d, nil
}

func canonicalIDs(keys []*publicKey) []string {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.canonical
	}
	return ids
}
