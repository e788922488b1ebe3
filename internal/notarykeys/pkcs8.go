package notarykeys

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // old key files are encrypted with it
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the notary client derives keys with HMAC-SHA-1 only
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"

	"github.com/countersign-dev/countersign/internal/keyid"
)

const (
	// defaultIterations are those of the key derivation of files that we write: about half a
	// second. The notary client writes 2048, and reads any number.
	defaultIterations = 300_000
	// maxIterations bounds the time to try a passphrase, to about 10 seconds.
	maxIterations = 5_000_000
	saltSize      = 16
)

// Object identifiers: RFC 8018 (PKCS #5), and of Notary's Ed25519 keys.
func oidPBES2() asn1.ObjectIdentifier  { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13} }
func oidPBKDF2() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12} }
func oidAES256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42} }
func oidNotaryEd25519() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 15, 1}
}

// privateKeyInfo is a private key in PKCS #8 (RFC 5208, section 5).
type privateKeyInfo struct {
	Version    int
	Algorithm  pkix.AlgorithmIdentifier
	PrivateKey []byte
}

// encryptedKey is an encrypted private key in PKCS #8 (RFC 5208, section 6; RFC 8018, A.4).
type encryptedKey struct {
	Algorithm struct {
		ID         asn1.ObjectIdentifier
		Parameters pbes2
	}
	Data []byte
}

type pbes2 struct {
	KeyDerivation, Cipher pkix.AlgorithmIdentifier
}

// derivation is PBKDF2-params (RFC 8018, A.2). We omit the function in files that we write, which
// means HMAC-SHA-1: the notary client would ignore any other, and derive a wrong key.
type derivation struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	Function   pkix.AlgorithmIdentifier `asn1:"optional"`
}

// parsePrivate reads an unencrypted private key in PKCS #8.
func parsePrivate(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("not a private key that can be read")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T cannot sign", key)
	}
	if _, _, err := keyid.Encode(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// normalise returns a private key in PKCS #8, as parsePrivate reads it, from the DER of a PEM block
// without encryption.
func normalise(blockType string, der []byte) ([]byte, error) {
	var key any
	var err error
	switch blockType {
	case blockEC:
		key, err = x509.ParseECPrivateKey(der)
	case blockRSA:
		key, err = x509.ParsePKCS1PrivateKey(der)
	case blockEd25519:
		key, err = notaryEd25519(der)
	default:
		var info privateKeyInfo
		if _, err := asn1.Unmarshal(der, &info); err == nil && info.Algorithm.Algorithm.Equal(oidNotaryEd25519()) {
			return normalise(blockEd25519, info.PrivateKey)
		}
		key, err = x509.ParsePKCS8PrivateKey(der)
	}
	if err != nil {
		return nil, errors.New("not a private key that can be read")
	}
	out, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("keys of type %T cannot sign", key)
	}
	if _, err := parsePrivate(out); err != nil {
		return nil, err
	}
	return out, nil
}

// notaryEd25519 reads an Ed25519 key as Notary encodes it: the public key, then the private key,
// which ends with the public key again.
func notaryEd25519(raw []byte) (ed25519.PrivateKey, error) {
	if len(raw) != ed25519.PublicKeySize+ed25519.PrivateKeySize {
		return nil, errors.New("wrong length")
	}
	key := ed25519.NewKeyFromSeed(raw[ed25519.PublicKeySize:][:ed25519.SeedSize])
	if !bytes.Equal(key[ed25519.SeedSize:], raw[:ed25519.PublicKeySize]) {
		return nil, errors.New("the public key is not that of the private key")
	}
	return key, nil
}

// encode returns a private key in the PKCS #8 that the notary client reads. It differs from der for
// Ed25519 alone.
func encode(der []byte) ([]byte, error) {
	key, err := parsePrivate(der)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return bytes.Clone(der), nil
	}
	return asn1.Marshal(privateKeyInfo{
		Algorithm:  pkix.AlgorithmIdentifier{Algorithm: oidNotaryEd25519()},
		PrivateKey: append(bytes.Clone(ed[ed25519.SeedSize:]), ed...),
	})
}

// encrypt encrypts a private key in PKCS #8 as the notary client does: PBES2, PBKDF2 with
// HMAC-SHA-1, and AES-256-CBC.
func encrypt(der, passphrase []byte, iterations int) ([]byte, error) {
	plain, err := encode(der)
	if err != nil {
		return nil, err
	}
	salt, iv := make([]byte, saltSize), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt) // it never fails
	_, _ = rand.Read(iv)
	secret, err := pbkdf2.Key(sha1.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key from the passphrase: %w", err)
	}
	defer clear(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	padding := aes.BlockSize - len(plain)%aes.BlockSize
	plain = append(plain, bytes.Repeat([]byte{byte(padding)}, padding)...)
	defer clear(plain)
	out := encryptedKey{Data: make([]byte, len(plain))}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out.Data, plain)

	out.Algorithm.ID = oidPBES2()
	parameters := &out.Algorithm.Parameters
	kdf := derivation{Salt: salt, Iterations: iterations}
	if parameters.KeyDerivation, err = identifier(oidPBKDF2(), kdf); err != nil {
		return nil, err
	}
	if parameters.Cipher, err = identifier(oidAES256(), iv); err != nil {
		return nil, err
	}
	return asn1.Marshal(out)
}

func identifier(id asn1.ObjectIdentifier, parameters any) (pkix.AlgorithmIdentifier, error) {
	der, err := asn1.Marshal(parameters)
	if err != nil {
		return pkix.AlgorithmIdentifier{}, err
	}
	return pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: der}}, nil
}

// decrypt decrypts a private key in PKCS #8 that is encrypted with PBES2 and PBKDF2. It returns
// ErrPassphrase if the passphrase is wrong: a wrong passphrase leaves wrong padding, or no key.
func decrypt(data, passphrase []byte) ([]byte, error) {
	var key encryptedKey
	if rest, err := asn1.Unmarshal(data, &key); err != nil || len(rest) > 0 {
		return nil, errUnreadableEncryption
	}
	if !key.Algorithm.ID.Equal(oidPBES2()) {
		return nil, errUnknownEncryption
	}
	secret, newCipher, err := derive(key.Algorithm.Parameters, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	block, err := newCipher(secret)
	if err != nil {
		return nil, errUnknownEncryption
	}
	var iv []byte
	size := block.BlockSize()
	rest, err := asn1.Unmarshal(key.Algorithm.Parameters.Cipher.Parameters.FullBytes, &iv)
	if err != nil || len(rest) > 0 || len(iv) != size || len(key.Data) == 0 || len(key.Data)%size != 0 {
		return nil, errUnreadableEncryption
	}
	plain := make([]byte, len(key.Data))
	defer clear(plain)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, key.Data)
	last := plain[len(plain)-1]
	padding := int(last)
	if padding == 0 || padding > size ||
		!bytes.Equal(plain[len(plain)-padding:], bytes.Repeat([]byte{last}, padding)) {
		return nil, ErrPassphrase
	}
	out, err := normalise(blockPKCS8, plain[:len(plain)-padding])
	if err != nil && !asn1Sequence(plain[:len(plain)-padding]) {
		return nil, ErrPassphrase
	}
	return out, err
}

// asn1Sequence reports whether data is one whole ASN.1 sequence: wrong passphrases leave noise.
func asn1Sequence(data []byte) bool {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(data, &v)
	return err == nil && len(rest) == 0 && v.Tag == asn1.TagSequence && v.IsCompound
}

var (
	errUnreadableEncryption = errors.New("its encryption cannot be read")
	errUnknownEncryption    = errors.New("it is encrypted in a way that is not supported (PBES2 with PBKDF2 is); " +
		"convert it with 'openssl pkcs8 -topk8 -v2 aes-256-cbc'")
)

// derive derives the key of the cipher from a passphrase.
func derive(p pbes2, passphrase []byte) ([]byte, func([]byte) (cipher.Block, error), error) {
	if !p.KeyDerivation.Algorithm.Equal(oidPBKDF2()) {
		return nil, nil, errUnknownEncryption
	}
	var d derivation
	if rest, err := asn1.Unmarshal(p.KeyDerivation.Parameters.FullBytes, &d); err != nil || len(rest) > 0 {
		return nil, nil, errUnreadableEncryption
	}
	if d.Iterations < 1 || d.Iterations > maxIterations {
		return nil, nil, fmt.Errorf("its encryption has %d iterations; at most %d are supported", d.Iterations,
			maxIterations)
	}
	function, err := hashOf(d.Function.Algorithm)
	if err != nil {
		return nil, nil, err
	}
	newCipher, size, err := cipherOf(p.Cipher.Algorithm)
	if err != nil {
		return nil, nil, err
	}
	if d.KeyLength != 0 && d.KeyLength != size {
		return nil, nil, errUnreadableEncryption
	}
	secret, err := pbkdf2.Key(function, string(passphrase), d.Salt, d.Iterations, size)
	if err != nil {
		return nil, nil, fmt.Errorf("deriving a key from the passphrase: %w", err)
	}
	return secret, newCipher, nil
}

// hashOf returns the hash of a pseudo-random function (RFC 8018, B.1). The default is HMAC-SHA-1.
func hashOf(id asn1.ObjectIdentifier) (func() hash.Hash, error) {
	switch id.String() {
	case "", "1.2.840.113549.2.7":
		return sha1.New, nil
	case "1.2.840.113549.2.9":
		return sha256.New, nil
	case "1.2.840.113549.2.10":
		return sha512.New384, nil
	case "1.2.840.113549.2.11":
		return sha512.New, nil
	}
	return nil, errUnknownEncryption
}

// cipherOf returns a block cipher in CBC mode, and the size of its key.
func cipherOf(id asn1.ObjectIdentifier) (func([]byte) (cipher.Block, error), int, error) {
	switch id.String() {
	case "2.16.840.1.101.3.4.1.2":
		return aes.NewCipher, 16, nil
	case "2.16.840.1.101.3.4.1.22":
		return aes.NewCipher, 24, nil
	case "2.16.840.1.101.3.4.1.42":
		return aes.NewCipher, 32, nil
	case "1.2.840.113549.3.7":
		return des.NewTripleDESCipher, 24, nil
	}
	return nil, 0, errUnknownEncryption
}
