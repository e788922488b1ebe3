package tufrepo

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/canonicaljson"
	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxKeys bounds the keys of one role.
	maxKeys = 64
	// maxKeySize bounds an encoded key, in bytes.
	maxKeySize = 8 << 10
	// minRSABits is the minimum of the specification.
	minRSABits = 2048
	maxRSABits = 8192
)

// Key is a key whose signature was verified.
type Key struct {
	// ID is the key ID as the specification computes it: the SHA-256 of the key's canonical form,
	// in hexadecimal. Repositories may list a key under any ID, so that one does not count.
	ID string
	// Fingerprint is the SHA-256 of the DER SubjectPublicKeyInfo, in hexadecimal. It is the same
	// however the key is written.
	Fingerprint string
}

// publicKey is a key that signatures can be verified with.
type publicKey struct {
	Key
	ids    []string // all IDs that the key has, for revocation
	key    crypto.PublicKey
	scheme string
}

// keyTexts are the keys of a root or of a targets file, by the IDs that it lists them under. They
// are decoded once they are used.
type keyTexts map[string]canonicaljson.Object

// decodeKeys reads the keys of a file, without decoding them.
func decodeKeys(o canonicaljson.Object) (keyTexts, error) {
	all, err := o.Object("keys")
	if err != nil {
		return nil, err
	}
	texts := make(keyTexts, all.Size())
	for name, v := range all.Members() {
		id, _ := name.Text()
		// A key of an unknown form never signs.
		texts[id], _ = v.Object()
	}
	return texts, nil
}

// parseKey decodes a key that is listed under an ID. An unknown type or scheme is an error.
func parseKey(listed string, o canonicaljson.Object) (*publicKey, error) {
	if len(o) > maxKeySize {
		return nil, fmt.Errorf("it has more than %d bytes", maxKeySize)
	}
	keyType, err := o.Text("keytype")
	if err != nil {
		return nil, err
	}
	scheme, err := o.Text("scheme")
	if err != nil {
		return nil, err
	}
	value, err := o.Object("keyval")
	if err != nil {
		return nil, err
	}
	public, err := value.Text("public")
	if err != nil {
		return nil, err
	}
	key, err := decodePublic(keyType, public)
	if err != nil {
		return nil, err
	}
	if err := checkScheme(scheme, key); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	k := &publicKey{key: key, scheme: scheme, Key: Key{Fingerprint: hexSHA256(der)}}
	k.ids = append(computedIDs(keyType, scheme, public, der), hexSHA256(o), listed)
	if k.ID = k.ids[0]; hexSHA256(o) == listed {
		k.ID = listed // with the further fields that some clients write into a key
	}
	return k, nil
}

// decodePublic decodes the public part of a key. A panic of a decoder would end the process, so the
// length of a raw key is checked first.
func decodePublic(keyType, public string) (crypto.PublicKey, error) {
	if keyType == metadata.KeyTypeEd25519 && len(public) != 2*ed25519.PublicKeySize {
		return nil, errors.New("an ed25519 key has 64 hexadecimal digits")
	}
	return (&metadata.Key{Type: keyType, Value: metadata.KeyVal{PublicKey: public}}).ToPublicKey()
}

// checkScheme returns an error if a signature scheme is unknown or does not belong to the key.
func checkScheme(scheme string, key crypto.PublicKey) error {
	switch k := key.(type) {
	case ed25519.PublicKey:
		if scheme == metadata.KeySchemeEd25519 {
			return nil
		}
	case *ecdsa.PublicKey:
		if scheme == metadata.KeySchemeECDSA_SHA2_P256 && k.Curve.Params().BitSize == 256 ||
			scheme == metadata.KeySchemeECDSA_SHA2_P384 && k.Curve.Params().BitSize == 384 {
			return nil
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("an RSA key has %d to %d bits, and this one %d", minRSABits, maxRSABits, bits)
		}
		if scheme == metadata.KeySchemeRSASSA_PSS_SHA256 {
			return nil
		}
	}
	return fmt.Errorf("unknown scheme %.40q for this type of key", scheme)
}

// computedIDs returns the IDs that the specification computes for a key, in the ways in which it is
// written: an ECDSA key has two type names, and one PEM block has many texts.
func computedIDs(keyType, scheme, public string, der []byte) []string {
	types, texts := []string{keyType}, []string{public}
	if keyType == metadata.KeyTypeEd25519 {
		texts = append(texts, strings.ToLower(public))
	} else {
		standard := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		texts = append(texts, standard, strings.TrimSpace(standard))
	}
	if strings.HasPrefix(keyType, metadata.KeyTypeECDSA_SHA2_P256) {
		types = append(types, metadata.KeyTypeECDSA_SHA2_P256, metadata.KeyTypeECDSA_SHA2_P256_COMPAT)
	}
	var ids []string
	for _, t := range types {
		for _, p := range texts {
			k := metadata.Key{Type: t, Scheme: scheme, Value: metadata.KeyVal{PublicKey: p}}
			if id, err := k.ID(); err == nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// verify reports whether a signature is valid.
func (k *publicKey) verify(message, sig []byte) bool {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, sig)
	case *ecdsa.PublicKey:
		if k.scheme == metadata.KeySchemeECDSA_SHA2_P384 {
			sum := sha512.Sum384(message)
			return ecdsa.VerifyASN1(key, sum[:], sig)
		}
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], sig)
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		return rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig, &rsa.PSSOptions{Hash: crypto.SHA256}) == nil
	}
	return false
}

// role is who must sign a file: the IDs of keys, and how many distinct ones.
type role struct {
	keys      keyTexts
	keyIDs    []string
	threshold int64
}

// decodeRole reads keyids and threshold. The threshold is checked when a file is verified: a role
// that nobody can fulfil must not spoil the file that lists it.
func decodeRole(o canonicaljson.Object, keys keyTexts) (role, error) {
	r := role{keys: keys}
	var err error
	if r.keyIDs, err = o.Texts("keyids", maxKeys); err == nil {
		r.threshold, err = o.Integer("threshold")
	}
	if errors.Is(err, canonicaljson.ErrTooMany) {
		err = trust.NewFault(v1alpha1.ReasonTooLarge, "%w", err)
	}
	return r, err
}

// unsignedError is the error of a file that too few keys of its role have signed.
type unsignedError struct {
	valid, threshold int64
}

func (e *unsignedError) Error() string {
	return fmt.Sprintf("it has valid signatures by %d of the role's keys, and needs %d", e.valid, e.threshold)
}

// verify returns the keys that have signed a file, sorted. It counts public keys, and not their IDs
// or signatures. The error is an *unsignedError, or a fault if revoked keys are missing.
func (r role) verify(e *envelope, revoked map[string]bool) ([]Key, error) {
	if r.threshold < 1 {
		return nil, fmt.Errorf("its role has a threshold of %d, and at least 1 is required", r.threshold)
	}
	counted, void := map[string]Key{}, map[string]bool{}
	revokedID := ""
	for _, id := range r.keyIDs {
		sig, signed := e.signatures[id]
		text, known := r.keys[id]
		if !signed || !known {
			continue
		}
		k, err := parseKey(id, text)
		if err != nil {
			continue // a key of an unknown type never signs
		}
		if _, twice := counted[k.Fingerprint]; !twice && !k.verify(e.signed, sig) {
			continue
		}
		counted[k.Fingerprint] = k.Key
		if slices.ContainsFunc(k.ids, func(id string) bool { return revoked[id] }) || revoked[k.Fingerprint] {
			void[k.Fingerprint], revokedID = true, k.ID
		}
	}
	// A key may be listed under a revoked ID and under another one.
	for fingerprint := range void {
		delete(counted, fingerprint)
	}
	if valid := int64(len(counted)); valid < r.threshold {
		err := &unsignedError{valid: valid, threshold: r.threshold}
		if valid+int64(len(void)) >= r.threshold {
			return nil, trust.NewFault(v1alpha1.ReasonKeyRevoked, "its key %s is revoked: %w", revokedID, err)
		}
		return nil, err
	}
	keys := make([]Key, 0, len(counted))
	for _, k := range counted {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	return keys, nil
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
