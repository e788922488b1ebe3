package notary

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/countersign-dev/countersign/internal/canonicaljson"
)

// fileMeta is the signed length and hashes of a file.
type fileMeta struct {
	length int64
	sha256 []byte // nil where absent
	sha512 []byte // nil where absent
}

// decodeMeta reads length and hashes. At least one known hash is required.
func decodeMeta(v canonicaljson.Value) (fileMeta, error) {
	length, h, err := decodeHashes(v)
	m := fileMeta{length: length}
	if h.has256 {
		m.sha256 = h.sha256[:]
	}
	if h.has512 {
		m.sha512 = h.sha512[:]
	}
	return m, err
}

// hashes are the hashes of one file. It is a value without pointers, because a file may list very
// many.
type hashes struct {
	sha256         [sha256.Size]byte
	sha512         [sha512.Size]byte
	has256, has512 bool
}

// decodeHashes reads the length and the hashes of a file or target.
func decodeHashes(v canonicaljson.Value) (length int64, h hashes, err error) {
	o, ok := v.Object()
	if !ok {
		return 0, h, errors.New("not an object")
	}
	if length, err = o.Integer("length"); err != nil {
		return 0, h, err
	}
	if length < 0 {
		return 0, h, fmt.Errorf("a length of %d", length)
	}
	all, err := o.Object("hashes")
	if err != nil {
		return 0, h, err
	}
	if h.has256, err = decodeHash(all, "sha256", h.sha256[:]); err != nil {
		return 0, h, err
	}
	if h.has512, err = decodeHash(all, "sha512", h.sha512[:]); err != nil {
		return 0, h, err
	}
	if !h.has256 && !h.has512 {
		return 0, h, errors.New("neither a sha256 nor a sha512 hash")
	}
	return length, h, nil
}

// decodeHash reads a hash into sum and reports whether it is present.
func decodeHash(all canonicaljson.Object, name string, sum []byte) (bool, error) {
	v := all.Get(name)
	if v.IsAbsent() || string(v) == `""` {
		return false, nil
	}
	if !v.IsString() {
		return false, canonicaljson.WrongField(name)
	}
	var decoded [96]byte
	encoded := v[1 : len(v)-1]
	if base64.StdEncoding.DecodedLen(len(encoded)) <= len(decoded) {
		if n, err := base64.StdEncoding.Decode(decoded[:], encoded); err == nil && n == len(sum) {
			copy(sum, decoded[:])
			return true, nil
		}
	}
	return false, fmt.Errorf("%s hash %.200q is not %d bytes in base64", name, []byte(encoded), len(sum))
}

// check verifies the length of raw and every listed hash.
func (m fileMeta) check(raw []byte) error {
	if int64(len(raw)) != m.length {
		return fmt.Errorf("has %d bytes where %d are signed", len(raw), m.length)
	}
	if m.sha256 != nil {
		if sum := sha256.Sum256(raw); subtle.ConstantTimeCompare(sum[:], m.sha256) == 0 {
			return fmt.Errorf("its sha256 is %s where %s is signed", hex.EncodeToString(sum[:]),
				hex.EncodeToString(m.sha256))
		}
	}
	if m.sha512 != nil {
		if sum := sha512.Sum512(raw); subtle.ConstantTimeCompare(sum[:], m.sha512) == 0 {
			return errors.New("its sha512 is not the one that is signed")
		}
	}
	return nil
}

// name returns the file's name on the server. It includes the sha256 if that is listed; without it,
// the server returns the latest version.
func (m fileMeta) name(file string) string {
	if m.sha256 == nil {
		return file + ".json"
	}
	return file + "." + hex.EncodeToString(m.sha256) + ".json"
}
