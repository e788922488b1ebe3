package tufrepo

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxDelegations bounds the delegations that one file lists.
	maxDelegations = 4096
	// maxPatterns bounds the path patterns, or hash prefixes, of one delegation.
	maxPatterns = 16384
	// maxPattern bounds a path pattern, and maxPatternBytes all of a file, in bytes. Matching takes
	// up to their product with the length of a path.
	maxPattern      = 1024
	maxPatternBytes = 512 << 10
)

// Target is what a role has signed about a path.
type Target struct {
	// Length is the size in bytes.
	Length int64
	// SHA256 and SHA512 are in lower-case hexadecimal. One of them may be empty.
	SHA256, SHA512 string
}

// bound reports whether a hash binds the content. A target without one is no statement.
func (t Target) bound() bool { return t.SHA256 != "" || t.SHA512 != "" }

// targetsFile is a verified targets file, or one whose delegation is still to be verified.
type targetsFile struct {
	file
	name        string
	signers     []Key         // of targets.json; a delegated file has those of each delegation
	targets     []namedTarget // sorted by path
	keys        keyTexts
	delegations []delegation
	bins        *bins
	own         map[string]bool // names of the delegations
}

type namedTarget struct {
	path string
	Target
}

// delegation is an entry of a targets file.
type delegation struct {
	role
	name         string
	paths        []string
	hashPrefixes []string
	terminating  bool
	invalid      error // it never counts, for this reason
}

// openTargets decodes a targets file and compares it with its entry in the snapshot. Its signatures
// are not verified.
func openTargets(name string, listed meta, raw []byte) (*targetsFile, *envelope, error) {
	if err := listed.check(raw); err != nil {
		return nil, nil, err
	}
	e, err := open(targetsRole, raw)
	if err != nil {
		return nil, nil, err
	}
	if e.version != listed.version {
		return nil, nil, wrongVersion(e.version, listed.version, snapshotRole)
	}
	f := &targetsFile{file: e.file, name: name}
	if err := f.decodeTargets(e.signed); err != nil {
		return nil, nil, err
	}
	return f, e, f.decodeDelegations(e.signed)
}

func (f *targetsFile) decodeTargets(signed canonicaljson.Object) error {
	all, err := signed.Object("targets")
	if err != nil {
		return err
	}
	f.targets = make([]namedTarget, 0, all.Size())
	for key, v := range all.Members() {
		path, _ := key.Text()
		t := namedTarget{path: path}
		o, ok := v.Object()
		if !ok {
			return fmt.Errorf("target %.80q is not an object", path)
		}
		if t.Length, err = o.Integer("length"); err != nil || t.Length < 0 {
			return fmt.Errorf("target %.80q: %w", path, canonicaljson.WrongField("length"))
		}
		hashes, err := o.Object("hashes")
		if err == nil {
			t.SHA256, t.SHA512, _, err = decodeHashes(hashes)
		}
		if err != nil {
			return fmt.Errorf("target %.80q: %w", path, err)
		}
		f.targets = append(f.targets, t)
	}
	slices.SortFunc(f.targets, func(a, b namedTarget) int { return cmp.Compare(a.path, b.path) })
	return nil
}

// target returns what the file says about a path.
func (f *targetsFile) target(path string) (Target, bool) {
	i, ok := slices.BinarySearchFunc(f.targets, path, func(t namedTarget, path string) int {
		return cmp.Compare(t.path, path)
	})
	if !ok {
		return Target{}, false
	}
	return f.targets[i].Target, true
}

func (f *targetsFile) decodeDelegations(signed canonicaljson.Object) error {
	block, err := signed.OptionalObject("delegations")
	if err != nil || block == nil {
		return err
	}
	if f.keys, err = decodeKeys(block); err != nil {
		return fmt.Errorf("its delegations: %w", err)
	}
	list, err := block.OptionalList("roles")
	if err != nil {
		return fmt.Errorf("its delegations: %w", err)
	}
	succinct, err := block.OptionalObject("succinct_roles")
	if err != nil {
		return fmt.Errorf("its delegations: %w", err)
	}
	if list != nil && succinct != nil {
		return errors.New("its delegations have both roles and succinct_roles")
	}
	if succinct != nil {
		f.bins, err = decodeBins(succinct, f.keys)
		return err
	}
	f.own = map[string]bool{}
	patternBytes := 0
	for v := range list.Elements() {
		if len(f.delegations) == maxDelegations {
			return trust.NewFault(v1alpha1.ReasonTooLarge, "it has more than the %d delegations that are read",
				maxDelegations)
		}
		d, err := decodeDelegation(v, f.keys)
		if err != nil {
			return fmt.Errorf("its delegation %.80q: %w", d.name, err)
		}
		if f.own[d.name] {
			return fmt.Errorf("its delegation %.80q occurs twice", d.name)
		}
		f.own[d.name] = true
		f.delegations = append(f.delegations, d)
		for _, pattern := range d.paths {
			patternBytes += len(pattern)
		}
		if patternBytes > maxPatternBytes {
			return trust.NewFault(v1alpha1.ReasonTooLarge, "its delegations have paths of more than %d bytes",
				maxPatternBytes)
		}
	}
	return nil
}

func decodeDelegation(v canonicaljson.Value, keys keyTexts) (delegation, error) {
	d := delegation{}
	o, ok := v.Object()
	if !ok {
		return d, errors.New("it is not an object")
	}
	var err error
	if d.name, err = o.Text("name"); err != nil {
		return d, err
	}
	d.invalid = checkRoleName(d.name)
	if d.role, err = decodeRole(o, keys); err != nil {
		return d, err
	}
	switch terminating := string(o.Get("terminating")); terminating {
	case "true", "false", "":
		d.terminating = terminating == "true"
	default:
		return d, canonicaljson.WrongField("terminating")
	}
	if d.paths, err = texts(o, "paths"); err != nil {
		return d, err
	}
	if d.hashPrefixes, err = texts(o, "path_hash_prefixes"); err != nil {
		return d, err
	}
	if d.paths != nil && d.hashPrefixes != nil {
		return d, errors.New("it has both paths and path_hash_prefixes")
	}
	return d, nil
}

func texts(o canonicaljson.Object, name string) ([]string, error) {
	all, err := o.Texts(name, maxPatterns)
	if errors.Is(err, canonicaljson.ErrTooMany) {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "%w", err)
	}
	if i := slices.IndexFunc(all, func(s string) bool { return len(s) > maxPattern }); err == nil && i >= 0 {
		return nil, fmt.Errorf("%q holds a pattern of more than %d bytes", name, maxPattern)
	}
	return all, err
}

// allows reports whether a delegation covers a path. hash is the SHA-256 of the path in
// hexadecimal. Without paths and prefixes it covers none.
func (d *delegation) allows(path, hash string) bool {
	for _, pattern := range d.paths {
		if matchPath(pattern, path) {
			return true
		}
	}
	for _, prefix := range d.hashPrefixes {
		// The specification has hexadecimal digits, in either case. An empty prefix covers nothing:
		// it is more likely a mistake than a delegation of everything.
		if prefix != "" && strings.HasPrefix(hash, strings.ToLower(prefix)) {
			return true
		}
	}
	return false
}

// bins are succinct hash bins (TAP 15): delegations that split the targets of one role by the hash
// of the path. They have common keys, and speak for the role that they split.
type bins struct {
	role
	bits   int
	prefix string
}

func decodeBins(o canonicaljson.Object, keys keyTexts) (*bins, error) {
	b := &bins{}
	var err error
	if b.role, err = decodeRole(o, keys); err != nil {
		return nil, fmt.Errorf("its succinct_roles: %w", err)
	}
	bits, err := o.Integer("bit_length")
	if err != nil || bits < 1 || bits > 32 {
		return nil, errors.New("its succinct_roles: bit_length is not from 1 to 32")
	}
	b.bits = int(bits)
	if b.prefix, err = o.Text("name_prefix"); err == nil {
		err = checkRoleName(b.name(0))
	}
	if err != nil {
		return nil, fmt.Errorf("its succinct_roles: %w", err)
	}
	return b, nil
}

// number returns the bin of a path: the leftmost bits of its SHA-256.
func (b *bins) number(path string) uint32 {
	sum := sha256.Sum256([]byte(path))
	return binary.BigEndian.Uint32(sum[:4]) >> (32 - b.bits)
}

// name returns the role name of a bin: its number in hexadecimal, with as many digits as the last
// bin needs.
func (b *bins) name(number uint32) string {
	return fmt.Sprintf("%s-%0*x", b.prefix, (b.bits+3)/4, number)
}

// parse returns the number of a bin by its name.
func (b *bins) parse(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, b.prefix+"-")
	number, err := strconv.ParseUint(digits, 16, 32)
	if !ok || err != nil || number>>b.bits != 0 {
		return 0, false
	}
	return uint32(number), b.name(uint32(number)) == name
}

// pathHash returns the SHA-256 of a path in hexadecimal.
func pathHash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:])
}

// matchPath reports whether a path matches a pattern with shell wildcards, element by element: no
// wildcard matches a slash.
func matchPath(pattern, path string) bool {
	if strings.Count(pattern, "/") != strings.Count(path, "/") {
		return false
	}
	for {
		p, restOfPattern, more := strings.Cut(pattern, "/")
		s, restOfPath, _ := strings.Cut(path, "/")
		if !matchElement(p, s) {
			return false
		}
		if !more {
			return true
		}
		pattern, path = restOfPattern, restOfPath
	}
}

// matchElement matches one path element with *, ? and [...] as glob(7) has them. It takes at most
// the product of the lengths. In a pattern that is malformed, '[' stands for itself.
func matchElement(pattern, s string) bool {
	p, r := []rune(pattern), []rune(s)
	i, j := 0, 0
	star, after := -1, 0 // the latest '*', and the position that it has matched up to
	for j < len(r) {
		if i < len(p) && p[i] == '*' {
			star, after = i, j
			i++
			continue
		}
		if n, ok := matchOne(p[i:], r[j]); ok {
			i, j = i+n, j+1
			continue
		}
		if star < 0 {
			return false
		}
		after++
		i, j = star+1, after
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// matchOne matches the beginning of a pattern other than '*' with one character. n is the length of
// that beginning.
func matchOne(p []rune, c rune) (n int, ok bool) {
	if len(p) == 0 {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '[':
		if n, matched := matchClass(p, c); n > 0 {
			return n, matched
		}
	}
	return 1, p[0] == c
}

// matchClass matches a class such as [a-z] or [!0-9]. n is 0 if p does not begin with one.
func matchClass(p []rune, c rune) (n int, ok bool) {
	i := 1
	negated := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negated {
		i++
	}
	first := i
	for ; i < len(p) && (p[i] != ']' || i == first); i++ {
		if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
			ok = ok || p[i] <= c && c <= p[i+2]
			i += 2
			continue
		}
		ok = ok || p[i] == c
	}
	if i >= len(p) {
		return 0, false
	}
	return i + 1, ok != negated
}
