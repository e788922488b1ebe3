package notary

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxSignatures bounds the signatures of one file.
	maxSignatures = 64
	// maxKeys bounds the keys that one role lists.
	maxKeys = 64
	// maxKeySize bounds an encoded key, in bytes: it can be a certificate with its chain.
	maxKeySize = 24 << 10
	// maxRootKeys and maxFileKeys bound the total size of the keys of a root and of a targets file,
	// in bytes. A parsed certificate takes up to thirty times its size in memory.
	maxRootKeys = 64 << 10
	maxFileKeys = 192 << 10
)

// envelope is a signed file that is decoded but not verified.
type envelope struct {
	signed  canonicaljson.Object // the signed part, in canonical form
	digest  [sha256.Size]byte
	sigs    []signature
	version int64
	expires time.Time
}

type signature struct {
	keyID  string
	method string
	sig    []byte

	checkedBy *publicKey // the key that checked it last; nil: none yet
	valid     bool       // the result of that check
}

// decodeEnvelope decodes a file whose "_type" must be typ.
func decodeEnvelope(raw []byte, typ string) (*envelope, error) {
	doc, err := canonicaljson.Encode(raw)
	if err != nil {
		return nil, err
	}
	top, ok := doc.Object()
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	e := &envelope{}
	if e.signed, err = top.Object("signed"); err != nil {
		return nil, err
	}
	if e.sigs, err = decodeSignatures(top); err != nil {
		return nil, err
	}
	got, err := e.signed.Text("_type")
	if err != nil {
		return nil, err
	}
	if got != typ {
		return nil, fmt.Errorf("its _type is %.80q and must be %q", got, typ)
	}
	if e.version, err = e.signed.Integer("version"); err != nil {
		return nil, err
	}
	if e.version < 1 {
		return nil, fmt.Errorf("version %d is below 1", e.version)
	}
	expires, err := e.signed.Text("expires")
	if err != nil {
		return nil, err
	}
	t, err := time.Parse(time.RFC3339Nano, expires)
	if err != nil {
		return nil, fmt.Errorf("reading expires: %.80q is not a time of RFC 3339", expires)
	}
	e.expires = t.UTC()
	e.digest = sha256.Sum256(e.signed)
	return e, nil
}

func decodeSignatures(top canonicaljson.Object) ([]signature, error) {
	list, err := top.List("signatures")
	if err != nil {
		return nil, err
	}
	var sigs []signature
	for item := range list.Elements() {
		if len(sigs) == maxSignatures {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "carries more than the %d signatures that are read",
				maxSignatures)
		}
		s, err := decodeSignature(item)
		if err != nil {
			return nil, fmt.Errorf("signature %d: %w", len(sigs), err)
		}
		sigs = append(sigs, s)
	}
	return sigs, nil
}

func decodeSignature(item canonicaljson.Value) (signature, error) {
	o, ok := item.Object()
	if !ok {
		return signature{}, errors.New("not an object")
	}
	var s signature
	var errs [3]error
	var encoded string
	s.keyID, errs[0] = o.Text("keyid")
	s.method, errs[1] = o.Text("method")
	encoded, errs[2] = o.Text("sig")
	if err := errors.Join(errs[:]...); err != nil {
		return signature{}, err
	}
	s.method = strings.ToLower(s.method)
	var err error
	if s.sig, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return signature{}, fmt.Errorf("sig: %w", err)
	}
	return s, nil
}

// isValid reports whether signature i of the file is of the key. It remembers the result, because a
// root is verified several times with the same keys. Neither the file nor a key ever changes. It is
// not safe for concurrent use.
func (e *envelope) isValid(i int, k *publicKey) bool {
	s := &e.sigs[i]
	if s.checkedBy != k {
		s.checkedBy, s.valid = k, k.verify(s.method, e.signed, s.sig)
	}
	return s.valid
}

// signers returns the distinct keys of a role whose signature on the file verifies, sorted by
// canonical ID. It leaves out keys for which counts is false.
func (e *envelope) signers(r role, counts func(*publicKey) bool) []*publicKey {
	var out []*publicKey
	for i, s := range e.sigs {
		k := r.keys[s.keyID]
		if k == nil || !counts(k) {
			continue
		}
		at, found := slices.BinarySearchFunc(out, k.canonical,
			func(k *publicKey, id string) int { return strings.Compare(k.canonical, id) })
		if !found && e.isValid(i, k) {
			out = slices.Insert(out, at, k)
		}
	}
	return out
}

// verify returns the signers of a file. It fails if they are fewer than the role's threshold.
func (e *envelope) verify(r role, counts func(*publicKey) bool) ([]*publicKey, error) {
	signers := e.signers(r, counts)
	if len(signers) < r.threshold {
		return nil, fmt.Errorf("is signed by %d of the keys that may sign it, and %d must have%s", len(signers),
			r.threshold, e.unmatched(r, signers))
	}
	return signers, nil
}

// unmatched names a key of the role whose signature in the file does not verify. It is empty if
// there is none. One cause is a signer that does not sort the members of custom data: it signs
// other bytes than readers verify.
func (e *envelope) unmatched(r role, signers []*publicKey) string {
	for i, s := range e.sigs {
		if k := r.keys[s.keyID]; k != nil && !slices.Contains(signers, k) && !e.isValid(i, k) {
			return fmt.Sprintf(
				": the signature of key %s is not over the canonical JSON of the file (members sorted by name, in "+
					"custom data too)", k.canonical)
		}
	}
	return ""
}

// current returns a fault if the file has expired.
func (e *envelope) current(now time.Time) error {
	if !now.Before(e.expires) {
		return trust.NewFault(v1alpha1.ReasonMetadataExpired, "expired at %s; it must be signed anew",
			e.expires.Format(time.RFC3339))
	}
	return nil
}

// role holds the keys that may sign a file and the threshold.
type role struct {
	keys      map[string]*publicKey // by the ID that signatures use
	threshold int
}

// roleEntry is a role as a file lists it, by key IDs.
type roleEntry struct {
	keyIDs    []string
	threshold int
}

// decodeRoleEntry reads keyids and threshold.
func decodeRoleEntry(o canonicaljson.Object) (roleEntry, error) {
	ids, err := o.Texts("keyids", maxKeys)
	if err != nil {
		return roleEntry{}, err
	}
	threshold, err := o.Integer("threshold")
	if err != nil {
		return roleEntry{}, err
	}
	if threshold < 1 || threshold > maxSignatures {
		return roleEntry{}, fmt.Errorf("a threshold of %d; it must be from 1 to %d", threshold, maxSignatures)
	}
	return roleEntry{keyIDs: ids, threshold: int(threshold)}, nil
}

// role resolves the key IDs with the keys of the file.
func (l roleEntry) role(keys map[string]*publicKey) role {
	r := role{keys: make(map[string]*publicKey, len(l.keyIDs)), threshold: l.threshold}
	for _, id := range l.keyIDs {
		if k := keys[id]; k != nil {
			r.keys[id] = k
		}
	}
	return r
}

// decodeKeys reads the keys of the object "keys" that a roleEntry lists. Their total size is at
// most limit bytes. It skips a key that is unreadable, too weak or too large, or does not hash to
// its ID.
func decodeKeys(o canonicaljson.Object, limit int, entries ...roleEntry) (map[string]*publicKey, error) {
	all, err := o.OptionalObject("keys")
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, l := range entries {
		for _, id := range l.keyIDs {
			wanted[id] = true
		}
	}
	keys := map[string]*publicKey{}
	for name, v := range all.Members() {
		id, _ := name.Text()
		if !wanted[id] {
			continue
		}
		if limit -= len(v); limit < 0 {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "lists keys of more bytes than are read")
		}
		k, err := decodeKey(v)
		if err != nil {
			return nil, fmt.Errorf("key %.80q: %w", id, err)
		}
		if k != nil && k.id == id {
			keys[id] = k
		}
	}
	return keys, nil
}

// decodeKey reads a key. It returns nil for a key that cannot count.
func decodeKey(v canonicaljson.Value) (*publicKey, error) {
	o, ok := v.Object()
	if !ok {
		return nil, errors.New("not an object")
	}
	keyType, err := o.Text("keytype")
	if err != nil {
		return nil, err
	}
	val, err := o.Object("keyval")
	if err != nil {
		return nil, err
	}
	encoded, err := val.Text("public")
	if err != nil {
		return nil, err
	}
	if len(encoded) > maxKeySize {
		return nil, nil //nolint:nilnil // the key does not count
	}
	public, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // the key does not count
	}
	k, err := parseKey(keyType, public)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // the key does not count
	}
	return k, nil
}
