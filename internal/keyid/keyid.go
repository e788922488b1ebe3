// Package keyid computes the IDs of keys in Notary v1 metadata, and encodes public keys for it.
//
// The canonical ID of a key is that of the bare public key, also where the metadata holds the key
// in a certificate. Users pin it, "docker trust inspect" prints it, and the key store of Docker
// names the file of the private key by it. The package refuses keys that are too weak for the
// format, or of a kind that cannot sign it.
package keyid

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

// Key types of the format. The x509 types hold a certificate in place of the bare key.
const (
	ECDSA     = "ecdsa"
	ECDSAX509 = "ecdsa-x509"
	RSA       = "rsa"
	RSAX509   = "rsa-x509"
	Ed25519   = "ed25519"
)

const (
	// MinRSABits is the size of the smallest RSA key that may sign.
	MinRSABits = 2048
	// MaxRSABits bounds the time of a signature check, which otherwise could take seconds.
	MaxRSABits = 8192
)

// Encode returns the type of a bare public key, and its bytes as they are in the "public" member of
// metadata, before base64. A key that is too weak, or cannot sign the format, is an error. Encode
// encodes the key anew, so another encoding of the same key does not look like another signer.
func Encode(key crypto.PublicKey) (keyType string, public []byte, err error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return Ed25519, k, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			keyType = ECDSA
		default:
			return "", nil, fmt.Errorf("elliptic curve %s is not one of P-256, P-384 and P-521", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < MinRSABits || bits > MaxRSABits {
			return "", nil, fmt.Errorf("an RSA key of %d bits; it must have from %d to %d", bits, MinRSABits,
				MaxRSABits)
		}
		keyType = RSA
	default:
		return "", nil, fmt.Errorf("keys of type %T cannot sign this format", key)
	}
	if public, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return "", nil, fmt.Errorf("encoding the public key: %w", err)
	}
	return keyType, public, nil
}

// Canonical returns the bare type of a key and its canonical ID. It returns the errors of Encode.
func Canonical(key crypto.PublicKey) (keyType, id string, err error) {
	keyType, public, err := Encode(key)
	if err != nil {
		return "", "", err
	}
	return keyType, Of(keyType, public), nil
}

// Of returns the key ID that signatures and roles of metadata use: the hexadecimal SHA-256 of the
// canonical JSON of the key without its private part. public is what base64 encodes there: of an
// x509 type it is the PEM certificate.
func Of(keyType string, public []byte) string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"keytype":"%s","keyval":{"private":null,"public":"%s"}}`,
		keyType, base64.StdEncoding.EncodeToString(public)))
	return hex.EncodeToString(sum[:])
}
