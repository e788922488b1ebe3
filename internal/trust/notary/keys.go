package notary

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/countersign-dev/countersign/internal/keyid"
)

// maxChain bounds the certificates of one key.
const maxChain = 10

// blockCertificate is the PEM type of a certificate.
const blockCertificate = "CERTIFICATE"

// publicKey is a key of signed metadata, or of the configuration.
type publicKey struct {
	// id is the key ID that signatures and roles use. For an x509 key it covers the certificate.
	id string
	// canonical is the ID of the bare public key. Keys are compared by it alone, so one key in two
	// certificates is one signer.
	canonical string
	key       crypto.PublicKey
	// chain is the leaf certificate followed by its issuers; nil for a bare key.
	chain []*x509.Certificate
}

// parseKey reads a key of signed metadata: its type, and the decoded bytes of "public".
func parseKey(keyType string, public []byte) (*publicKey, error) {
	k := &publicKey{id: keyid.Of(keyType, public)}
	var err error
	switch keyType {
	case keyid.Ed25519:
		if len(public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an ed25519 key has %d bytes, not %d", ed25519.PublicKeySize, len(public))
		}
		k.key = ed25519.PublicKey(public)
	case keyid.ECDSA, keyid.RSA:
		// Python clients encode RSA keys as PEM.
		if block, _ := pem.Decode(public); block != nil && keyType == keyid.RSA {
			public = block.Bytes
		}
		if k.key, err = parsePKIX(public); err != nil {
			return nil, err
		}
	case keyid.ECDSAX509, keyid.RSAX509:
		if k.chain, err = parseCertificates(public, maxChain); err != nil {
			return nil, err
		}
		k.key = k.chain[0].PublicKey
	default:
		return nil, fmt.Errorf("unknown key type %q", keyType)
	}
	bareType, canonical, err := keyid.Canonical(k.key)
	if err != nil {
		return nil, err
	}
	if bareType != strings.TrimSuffix(keyType, "-x509") {
		return nil, fmt.Errorf("key type %q holds a key of type %q", keyType, bareType)
	}
	k.canonical = canonical
	return k, nil
}

// parsePEMKey reads a public key or a certificate of the configuration. Of a certificate only the
// key counts. CA certificates may follow it, as in a chain file; their keys are ignored.
func parsePEMKey(text string) (*publicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not PEM; expected '-----BEGIN PUBLIC KEY-----' or '-----BEGIN CERTIFICATE-----'")
	}
	k := &publicKey{}
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		if k.key, err = parsePKIX(block.Bytes); err != nil {
			return nil, err
		}
		if next, _ := pem.Decode(rest); next != nil {
			return nil, errMoreKeys
		}
	case blockCertificate:
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("is not a readable certificate")
		}
		if err := checkIssuers(cert, rest); err != nil {
			return nil, err
		}
		k.key = cert.PublicKey
	default:
		return nil, fmt.Errorf("PEM block %q is neither a public key nor a certificate", block.Type)
	}
	if _, k.canonical, err = keyid.Canonical(k.key); err != nil {
		return nil, err
	}
	k.id = k.canonical
	return k, nil
}

var errMoreKeys = errors.New("more than one PEM block; give each key as an entry of its own")

// checkIssuers accepts only CA certificates after the certificate of a key. If a CA certificate
// comes first, it is unclear which key is meant, and the key of a CA must not be pinned by mistake.
func checkIssuers(leaf *x509.Certificate, rest []byte) error {
	for n := 2; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if block.Type != blockCertificate {
			return errMoreKeys
		}
		issuer, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return fmt.Errorf("certificate %d is not readable; give the first alone", n)
		case leaf.IsCA:
			return errors.New(
				"the first of several certificates is a CA certificate; put the certificate of the key first, or " +
					"give it alone")
		case !issuer.IsCA:
			return fmt.Errorf("certificate %d is not a CA certificate; give each key as an entry of its own", n)
		}
	}
}

// parsePKIX reads a public key. Its error omits the cause: the texts of the ASN.1 parser do not
// help the administrator.
func parsePKIX(der []byte) (crypto.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New(
			"is not a public key in PKIX form; export it again, for example with 'openssl pkey -pubout'")
	}
	return key, nil
}

// parseCertificates reads a PEM bundle of at least one and at most limit certificates.
func parseCertificates(data []byte, limit int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != blockCertificate {
			return nil, fmt.Errorf("PEM block %q is not a certificate", block.Type)
		}
		if len(certs) == limit {
			return nil, fmt.Errorf("more than %d certificates", limit)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is not readable", len(certs)+1)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate found")
	}
	return certs, nil
}

// verify reports whether sig is the key's signature over message. Every method hashes with SHA-256,
// whatever the size of the key.
func (k *publicKey) verify(method string, message, sig []byte) bool {
	sum := sha256.Sum256(message)
	switch pub := k.key.(type) {
	case ed25519.PublicKey:
		return method == "eddsa" && ed25519.Verify(pub, message, sig)
	case *ecdsa.PublicKey:
		size := (pub.Curve.Params().BitSize + 7) / 8
		if method != "ecdsa" || len(sig) != 2*size {
			return false
		}
		return ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:]))
	case *rsa.PublicKey:
		switch method {
		case "rsapss", "pycrypto-pkcs#1 pss":
			opts := &rsa.PSSOptions{SaltLength: sha256.Size, Hash: crypto.SHA256}
			return rsa.VerifyPSS(pub, crypto.SHA256, sum[:], sig, opts) == nil
		case "rsapkcs1v15":
			return rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig) == nil
		}
	}
	return false
}
