package notary

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxSignatures bounds the signatures of one file.
	maxSignatures = 64
	// maxKeys bounds the keys that one role lists.
	maxKeys = 64
)

// envelope is a signed file, decoded and not yet verified.
type envelope struct {
	signed  object
	message []byte // the canonical form of signed: what is signed
	digest  [sha256.Size]byte
	sigs    []signature
	version int64
	expires time.Time
}

type signature struct {
	keyID  string
	method string
	sig    []byte
}

// decodeEnvelope decodes a file whose "_type" must be typ.
func decodeEnvelope(raw []byte, typ string) (*envelope, error) {
	doc, err := parseJSON(raw)
	if err != nil {
		return nil, err
	}
	top, ok := doc.(object)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	e := &envelope{}
	if e.signed, err = field[object](top, "signed"); err != nil {
		return nil, err
	}
	if e.sigs, err = decodeSignatures(top); err != nil {
		return nil, err
	}
	got, err := field[string](e.signed, "_type")
	if err != nil {
		return nil, err
	}
	if got != typ {
		return nil, fmt.Errorf("its _type is %q and must be %q", got, typ)
	}
	if e.version, err = integer(e.signed, "version"); err != nil {
		return nil, err
	}
	if e.version < 1 {
		return nil, fmt.Errorf("version %d is below 1", e.version)
	}
	expires, err := field[string](e.signed, "expires")
	if err != nil {
		return nil, err
	}
	t, err := time.Parse(time.RFC3339Nano, expires)
	if err != nil {
		return nil, fmt.Errorf("reading expires: %w", err)
	}
	e.expires = t.UTC()
	e.message = appendCanonical(nil, e.signed)
	e.digest = sha256.Sum256(e.message)
	return e, nil
}

func decodeSignatures(top object) ([]signature, error) {
	list, err := field[[]any](top, "signatures")
	if err != nil {
		return nil, err
	}
	if len(list) > maxSignatures {
		return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "carries %d signatures, more than the %d that are read", len(list), maxSignatures)
	}
	sigs := make([]signature, len(list))
	for i, item := range list {
		o, ok := item.(object)
		if !ok {
			return nil, fmt.Errorf("signature %d is not an object", i)
		}
		var errs [3]error
		var encoded string
		sigs[i].keyID, errs[0] = field[string](o, "keyid")
		sigs[i].method, errs[1] = field[string](o, "method")
		encoded, errs[2] = field[string](o, "sig")
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("signature %d: %w", i, err)
		}
		sigs[i].method = strings.ToLower(sigs[i].method)
		if sigs[i].sig, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return nil, fmt.Errorf("signature %d: %w", i, err)
		}
	}
	return sigs, nil
}

// signers returns the distinct keys of a role whose signature on the file verifies, sorted by canonical ID,
// without those that counts refuses.
func (e *envelope) signers(r role, counts func(*publicKey) bool) []*publicKey {
	var out []*publicKey
	for _, s := range e.sigs {
		k := r.keys[s.keyID]
		if k == nil || !counts(k) {
			continue
		}
		at, found := slices.BinarySearchFunc(out, k.canonical, func(k *publicKey, id string) int { return strings.Compare(k.canonical, id) })
		if !found && k.verify(s.method, e.message, s.sig) {
			out = slices.Insert(out, at, k)
		}
	}
	return out
}

// verify returns the signers of a file where they reach the role's threshold.
func (e *envelope) verify(r role, counts func(*publicKey) bool) ([]*publicKey, error) {
	signers := e.signers(r, counts)
	if len(signers) < r.threshold {
		return nil, fmt.Errorf("is signed by %d of the keys that may sign it, and %d must have", len(signers), r.threshold)
	}
	return signers, nil
}

// current fails once a file has expired.
func (e *envelope) current(now time.Time) error {
	if !now.Before(e.expires) {
		return trust.NewFault(v1alpha1.ReasonMetadataExpired, "expired at %s; it must be signed anew", e.expires.Format(time.RFC3339))
	}
	return nil
}

// role is who may sign a file, and how many of them must have.
type role struct {
	keys      map[string]*publicKey // by the ID that signatures use
	threshold int
}

// decodeKeys reads a "keys" object. A key that cannot be read, is too weak, or does not hash to its ID counts for
// nothing and spoils nothing.
func decodeKeys(o object, name string) (map[string]*publicKey, error) {
	raw, err := optional[object](o, name)
	if err != nil {
		return nil, err
	}
	keys := make(map[string]*publicKey, len(raw))
	for id, v := range raw {
		ko, ok := v.(object)
		if !ok {
			return nil, fmt.Errorf("key %q is not an object", id)
		}
		keyType, err := field[string](ko, "keytype")
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", id, err)
		}
		val, err := field[object](ko, "keyval")
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", id, err)
		}
		encoded, err := field[string](val, "public")
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", id, err)
		}
		public, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			continue
		}
		if k, err := parseKey(keyType, public); err == nil && k.id == id {
			keys[id] = k
		}
	}
	return keys, nil
}

// decodeRole reads keyids and threshold.
func decodeRole(o object, keys map[string]*publicKey) (role, error) {
	ids, err := texts(o, "keyids")
	if err != nil {
		return role{}, err
	}
	if len(ids) > maxKeys {
		return role{}, fmt.Errorf("lists %d keys, more than the %d that are read", len(ids), maxKeys)
	}
	threshold, err := integer(o, "threshold")
	if err != nil {
		return role{}, err
	}
	if threshold < 1 || threshold > maxSignatures {
		return role{}, fmt.Errorf("a threshold of %d; it must be from 1 to %d", threshold, maxSignatures)
	}
	r := role{keys: make(map[string]*publicKey, len(ids)), threshold: int(threshold)}
	for _, id := range ids {
		if k := keys[id]; k != nil {
			r.keys[id] = k
		}
	}
	return r, nil
}

// fileMeta is what a signed file says about another, or about a target.
type fileMeta struct {
	length int64
	sha256 []byte // nil where absent
	sha512 []byte // nil where absent
}

// decodeMeta reads length and hashes. At least one hash that we know must be there.
func decodeMeta(v any) (fileMeta, error) {
	var m fileMeta
	o, ok := v.(object)
	if !ok {
		return m, errors.New("not an object")
	}
	var err error
	if m.length, err = integer(o, "length"); err != nil {
		return m, err
	}
	if m.length < 0 {
		return m, fmt.Errorf("a length of %d", m.length)
	}
	hashes, err := field[object](o, "hashes")
	if err != nil {
		return m, err
	}
	if m.sha256, err = decodeHash(hashes, "sha256", sha256.Size); err != nil {
		return m, err
	}
	if m.sha512, err = decodeHash(hashes, "sha512", sha512.Size); err != nil {
		return m, err
	}
	if m.sha256 == nil && m.sha512 == nil {
		return m, errors.New("neither a sha256 nor a sha512 hash")
	}
	return m, nil
}

func decodeHash(hashes object, name string, size int) ([]byte, error) {
	encoded, err := optional[string](hashes, name)
	if err != nil || encoded == "" {
		return nil, err
	}
	sum, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sum) != size {
		return nil, fmt.Errorf("%s hash %q is not %d bytes in base64", name, encoded, size)
	}
	return sum, nil
}

// check verifies that raw is what was meant: its length, and every hash that is given.
func (m fileMeta) check(raw []byte) error {
	if int64(len(raw)) != m.length {
		return fmt.Errorf("has %d bytes where %d are signed", len(raw), m.length)
	}
	if m.sha256 != nil {
		if sum := sha256.Sum256(raw); subtle.ConstantTimeCompare(sum[:], m.sha256) == 0 {
			return fmt.Errorf("its sha256 is %s where %s is signed", hex.EncodeToString(sum[:]), hex.EncodeToString(m.sha256))
		}
	}
	if m.sha512 != nil {
		if sum := sha512.Sum512(raw); subtle.ConstantTimeCompare(sum[:], m.sha512) == 0 {
			return errors.New("its sha512 is not the one that is signed")
		}
	}
	return nil
}

// name is the file's name on the server: by hash where the sha256 is known, else the latest.
func (m fileMeta) name(file string) string {
	if m.sha256 == nil {
		return file + ".json"
	}
	return file + "." + hex.EncodeToString(m.sha256) + ".json"
}
