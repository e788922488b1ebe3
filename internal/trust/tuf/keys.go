package tuf

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// pinnedKey returns the fingerprint of a public key, or of the key of a certificate: the SHA-256 of
// its SubjectPublicKeyInfo. CA certificates may follow a certificate, as in a chain file. They are
// ignored.
func pinnedKey(text string) (fingerprint string, err error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return "", errors.New("not PEM; expected '-----BEGIN PUBLIC KEY-----' or '-----BEGIN CERTIFICATE-----'")
	}
	var key any
	switch block.Type {
	case "PUBLIC KEY":
		if key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return "", errors.New("is not a readable public key")
		}
		if strings.TrimSpace(string(rest)) != "" {
			return "", errors.New("more follows the key; give each key as an entry of its own")
		}
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", errors.New("is not a readable certificate")
		}
		if err := checkIssuers(cert, rest); err != nil {
			return "", err
		}
		key = cert.PublicKey
	default:
		return "", fmt.Errorf("PEM block %q is neither a public key nor a certificate", block.Type)
	}
	switch key.(type) {
	case ed25519.PublicKey, *ecdsa.PublicKey, *rsa.PublicKey:
	default:
		return "", fmt.Errorf("keys of type %T cannot sign this format", key)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// checkIssuers accepts only CA certificates after the certificate of a key. The key of a CA must
// not be pinned by mistake.
func checkIssuers(leaf *x509.Certificate, rest []byte) error {
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if strings.TrimSpace(string(rest)) != "" {
				return errors.New("what follows the certificate is not PEM")
			}
			return nil
		}
		next, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !next.IsCA || leaf.IsCA {
			return errors.New("only the CA certificates of its chain may follow a certificate; give each key as an " +
				"entry of its own")
		}
	}
}
