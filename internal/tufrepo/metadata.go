package tufrepo

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// maxName bounds the name of a role and the path of a target, in bytes.
const (
	maxName = 255
	maxPath = 1024
)

// rootFile is a root: the keys of the top-level roles.
type rootFile struct {
	file
	consistent bool
	roles      map[string]role
}

// openRoot decodes a root. Its signatures are not verified.
func openRoot(raw []byte) (*rootFile, *envelope, error) {
	e, err := open(rootRole, raw)
	if err != nil {
		return nil, nil, err
	}
	r := &rootFile{
		file: e.file, consistent: string(e.signed.Get("consistent_snapshot")) == "true", roles: map[string]role{},
	}
	keys, err := decodeKeys(e.signed)
	if err != nil {
		return nil, nil, err
	}
	roles, err := e.signed.Object("roles")
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{rootRole, timestampRole, snapshotRole, targetsRole} {
		o, err := roles.Object(name)
		if err != nil {
			return nil, nil, fmt.Errorf("role %w", err)
		}
		if r.roles[name], err = decodeRole(o, keys); err != nil {
			return nil, nil, fmt.Errorf("role %s: %w", name, err)
		}
	}
	return r, e, nil
}

// timestampFile is a timestamp: the current snapshot.
type timestampFile struct {
	file
	snapshot meta
}

// verifyTimestamp decodes and verifies a timestamp. Its expiry is not checked.
func (c *Client) verifyTimestamp(root *rootFile, raw []byte) (*timestampFile, error) {
	e, err := c.openSigned(timestampRole, root, raw)
	if err != nil {
		return nil, err
	}
	t := &timestampFile{file: e.file}
	metas, err := e.signed.Object("meta")
	if err == nil {
		t.snapshot, err = decodeMeta(metas.Get(snapshotRole + ".json"))
	}
	if err == nil && t.snapshot.length > maxSnapshotSize {
		err = tooLong(snapshotRole, t.snapshot.length, maxSnapshotSize)
	}
	if err != nil {
		return nil, fmt.Errorf("its entry snapshot.json: %w", err)
	}
	return t, nil
}

func tooLong(name string, length, most int64) error {
	return trust.NewFault(v1alpha1.ReasonTooLarge, "%s.json is listed with %d bytes, more than the %d that are read",
		name, length, most)
}

// openSigned decodes a top-level file that the root's keys of its role must have signed.
func (c *Client) openSigned(name string, root *rootFile, raw []byte) (*envelope, error) {
	e, err := open(name, raw)
	if err != nil {
		return nil, err
	}
	if _, err := root.roles[name].verify(e, c.revoked); err != nil {
		return nil, err
	}
	return e, nil
}

// snapshotFile is a snapshot: the current targets and delegated files, by role.
type snapshotFile struct {
	file
	listed map[string]meta
}

// verifySnapshot decodes and verifies the snapshot that a timestamp lists. Its expiry is not
// checked.
func (c *Client) verifySnapshot(root *rootFile, listed meta, raw []byte) (*snapshotFile, error) {
	if err := listed.check(raw); err != nil {
		return nil, err
	}
	e, err := c.openSigned(snapshotRole, root, raw)
	if err != nil {
		return nil, err
	}
	if e.version != listed.version {
		return nil, wrongVersion(e.version, listed.version, timestampRole)
	}
	s := &snapshotFile{file: e.file}
	metas, err := e.signed.Object("meta")
	if err != nil {
		return nil, err
	}
	s.listed = make(map[string]meta, metas.Size())
	for key, v := range metas.Members() {
		name, _ := key.Text()
		m, err := decodeMeta(v)
		if err != nil {
			return nil, fmt.Errorf("its entry %.80q: %w", name, err)
		}
		if role, ok := strings.CutSuffix(name, ".json"); ok {
			s.listed[role] = m
		}
	}
	if _, ok := s.listed[targetsRole]; !ok {
		return nil, errors.New("it does not list targets.json")
	}
	return s, nil
}

// wrongVersion returns the error of a file that is of another publication than the file that lists
// it.
func wrongVersion(got, want int64, by string) error {
	return fmt.Errorf("it has version %d, and %s.json lists %d: they are of different publications", got, by, want)
}

// rolledBack returns the fault of a version below the one that was seen.
func rolledBack(what string, got, seen int64) error {
	return trust.NewFault(v1alpha1.ReasonRollback,
		"%s has version %d, and version %d was seen before; publish a higher version", what, got, seen)
}

// replaced returns the fault of other content under a version that was seen.
func replaced(version int64) error {
	return trust.NewFault(v1alpha1.ReasonRollback,
		"version %d was seen before with other content; publish a higher version", version)
}

// checkNoRollback compares a snapshot with the one that was held (section 5.5.5).
func (s *snapshotFile) checkNoRollback(held *snapshotFile) error {
	if s.version < held.version {
		return rolledBack("it", s.version, held.version)
	}
	if s.version == held.version && s.digest != held.digest {
		return replaced(s.version)
	}
	for name, before := range held.listed {
		now, ok := s.listed[name]
		if !ok {
			return trust.NewFault(v1alpha1.ReasonRollback,
				"it no longer lists %.80q, which was seen before in version %d; list it again", name+".json",
				before.version)
		}
		if now.version < before.version {
			return rolledBack(fmt.Sprintf("its entry %.80q", name+".json"), now.version, before.version)
		}
	}
	return nil
}

// verifyTargets decodes and verifies the targets.json that a snapshot lists. Its expiry is not
// checked.
func (c *Client) verifyTargets(root *rootFile, listed meta, raw []byte) (*targetsFile, error) {
	f, e, err := openTargets(targetsRole, listed, raw)
	if err != nil {
		return nil, err
	}
	keys, err := root.roles[targetsRole].verify(e, c.revoked)
	if err != nil {
		return nil, err
	}
	f.signers = keys
	return f, nil
}

// checkRoleName returns an error if no URL is made of the name of a delegated role.
func checkRoleName(name string) error {
	switch name {
	case "", rootRole, timestampRole, snapshotRole, targetsRole:
		return fmt.Errorf("%q cannot be the name of a delegated role", name)
	}
	return checkPath(name, maxName)
}

// checkPath returns an error for a name or target path with elements that lead elsewhere.
func checkPath(name string, limit int) error {
	switch {
	case len(name) > limit:
		return fmt.Errorf("%.80q... has more than %d bytes", name, limit)
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl), strings.Contains(name, `\`):
		return fmt.Errorf("%.80q has a control character or a backslash", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("%.80q has an empty path element, or one of dots", name)
		}
	}
	return nil
}
