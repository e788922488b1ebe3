package tufrepo

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

// The roles of every repository.
const (
	rootRole      = "root"
	timestampRole = "timestamp"
	snapshotRole  = "snapshot"
	targetsRole   = "targets"
)

// delegationKind is the kind of all delegated files in metrics.
const delegationKind = "delegation"

// maxSignatures bounds the signatures of one file.
const maxSignatures = 64

// file is a signed file: what all types of it have. It is immutable.
type file struct {
	raw     []byte
	version int64
	expires time.Time
	// digest is that of the signed content. Signatures can differ where it is equal.
	digest [sha256.Size]byte
}

// checkExpiry returns a fault if the file has expired at the cutoff: section 5.1 has it that a file
// must expire later than the time of the update.
func (f *file) checkExpiry(cutoff time.Time) error {
	if f.expires.After(cutoff) {
		return nil
	}
	return trust.NewFault(v1alpha1.ReasonMetadataExpired,
		"expired at %s; whoever publishes the repository must sign it anew", f.expires.UTC().Format(time.RFC3339))
}

// envelope is a decoded file whose signatures are not verified.
type envelope struct {
	file
	signed     canonicaljson.Object
	signatures map[string][]byte // by key ID
}

// open decodes a file whose "_type" must be typ. Everything that is read later is in signed, which
// is in canonical form: exactly what the signatures are over.
func open(typ string, raw []byte) (*envelope, error) {
	doc, err := canonicaljson.Encode(raw)
	if err != nil {
		return nil, err
	}
	top, ok := doc.Object()
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	e := &envelope{file: file{raw: raw}}
	if e.signed, err = top.Object("signed"); err != nil {
		return nil, err
	}
	e.digest = sha256.Sum256(e.signed)
	if got, err := e.signed.Text("_type"); err != nil || got != typ {
		return nil, fmt.Errorf("it is of type %.40q, not %q", got, typ)
	}
	if spec, err := e.signed.Text("spec_version"); err != nil || !strings.HasPrefix(spec, "1.") {
		return nil, fmt.Errorf("it follows version %.40q of the TUF specification; only 1 is read", spec)
	}
	if e.version, err = e.signed.Integer("version"); err != nil || e.version < 1 {
		return nil, errors.New(`"version" is not an integer above 0`)
	}
	expires, err := e.signed.Text("expires")
	if err == nil {
		e.expires, err = time.Parse(time.RFC3339, expires)
	}
	if err != nil {
		return nil, fmt.Errorf(`"expires" is no time: %.60q`, expires)
	}
	e.signatures, err = decodeSignatures(top)
	return e, err
}

// decodeSignatures reads the signatures by key ID. A key ID that occurs twice is an error (section
// 4.2).
func decodeSignatures(top canonicaljson.Object) (map[string][]byte, error) {
	list, err := top.List("signatures")
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for item := range list.Elements() {
		o, ok := item.Object()
		if !ok {
			return nil, canonicaljson.WrongField("signatures")
		}
		id, err := o.Text("keyid")
		if err != nil {
			return nil, err
		}
		encoded, err := o.Text("sig")
		if err != nil {
			return nil, err
		}
		if _, twice := all[id]; twice {
			return nil, fmt.Errorf("key %.80q has two signatures", id)
		}
		if len(all) == maxSignatures {
			return nil, trust.NewFault(v1alpha1.ReasonTooLarge, "it has more than the %d signatures that are read",
				maxSignatures)
		}
		// What is not hexadecimal is no signature, as one by an unknown key.
		all[id], _ = hex.DecodeString(encoded)
	}
	return all, nil
}

// meta is an entry of a timestamp or snapshot: version, length and hashes of a file.
type meta struct {
	version int64
	length  int64 // 0: not listed
	sha256  string
	sha512  string
	other   bool // hashes of other algorithms only
}

// hashed reports whether the entry binds the content.
func (m meta) hashed() bool { return m.sha256 != "" || m.sha512 != "" }

// limit returns the bytes to read of the file.
func (m meta) limit(most int64) int64 {
	if m.length > 0 && m.length < most {
		return m.length
	}
	return most
}

// check compares a file with its entry.
func (m meta) check(raw []byte) error {
	if m.length > 0 && int64(len(raw)) != m.length {
		return fmt.Errorf("it has %d bytes, and signed metadata lists %d", len(raw), m.length)
	}
	if m.other {
		return errors.New("signed metadata lists its hash in an unknown algorithm; use sha256 or sha512")
	}
	if sum := sha256.Sum256(raw); m.sha256 != "" && m.sha256 != hex.EncodeToString(sum[:]) {
		return errors.New("its sha256 is not the one that signed metadata lists")
	}
	if m.sha512 != "" {
		if sum := sha512.Sum512(raw); m.sha512 != hex.EncodeToString(sum[:]) {
			return errors.New("its sha512 is not the one that signed metadata lists")
		}
	}
	return nil
}

// decodeMeta reads an entry of a timestamp or snapshot.
func decodeMeta(v canonicaljson.Value) (meta, error) {
	o, ok := v.Object()
	if !ok {
		return meta{}, errors.New("it is not an object")
	}
	m := meta{}
	var err error
	if m.version, err = o.Integer("version"); err != nil || m.version < 1 {
		return m, errors.New(`"version" is not an integer above 0`)
	}
	if !o.Get("length").IsAbsent() {
		if m.length, err = o.Integer("length"); err != nil || m.length < 0 {
			return m, canonicaljson.WrongField("length")
		}
	}
	hashes, err := o.OptionalObject("hashes")
	if err != nil {
		return m, err
	}
	m.sha256, m.sha512, m.other, err = decodeHashes(hashes)
	return m, err
}

// decodeHashes reads the hashes of known algorithms. other: there are hashes, and none is known.
func decodeHashes(o canonicaljson.Object) (in256, in512 string, other bool, err error) {
	if in256, err = decodeHash(o, "sha256", sha256.Size); err == nil {
		in512, err = decodeHash(o, "sha512", sha512.Size)
	}
	return in256, in512, in256 == "" && in512 == "" && o.Size() > 0, err
}

func decodeHash(o canonicaljson.Object, name string, size int) (string, error) {
	v := o.Get(name)
	if len(v) == 0 {
		return "", nil
	}
	encoded, ok := v.Text()
	sum, err := hex.DecodeString(encoded)
	if !ok || err != nil || len(sum) != size {
		return "", canonicaljson.WrongField(name)
	}
	return hex.EncodeToString(sum), nil // in lower case
}
