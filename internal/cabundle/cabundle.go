// Package cabundle reads bundles of CA certificates in PEM.
//
// CA bundles in use contain certificates that crypto/x509 refuses, for example with a negative
// serial number. Read skips and names such a certificate, so that the others can be used. Skipping
// never adds trust. A bundle without any usable certificate is an error, and so is a bundle with a
// private key. An error never contains anything of a private key. The package does no I/O.
package cabundle

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/countersign-dev/countersign/internal/text"
)

const (
	// maxSkipped bounds the skipped blocks that Skipped names.
	maxSkipped = 5
	// maxSubject bounds the subject of a skipped certificate in a message, in bytes.
	maxSubject  = 120
	certificate = "CERTIFICATE"
)

// Bundle is a parsed CA bundle.
type Bundle struct {
	// Certificates are the usable certificates, in their order. There is at least one.
	Certificates []*x509.Certificate
	// Skipped names the first maxSkipped skipped blocks, with the reason.
	Skipped []string
}

// Pool returns the certificates as a pool.
func (b *Bundle) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range b.Certificates {
		pool.AddCert(cert)
	}
	return pool
}

// Read reads a bundle of at most limit blocks; 0 means no limit. accept returns why a certificate
// cannot be used, or nil. A nil accept accepts every certificate.
func Read(data []byte, limit int, accept func(*x509.Certificate) error) (*Bundle, error) {
	b := &Bundle{}
	blocks, skipped := 0, 0
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if blocks++; limit > 0 && blocks > limit {
			return nil, fmt.Errorf("more than %d certificates", limit)
		}
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return nil, fmt.Errorf("PEM block %d is a private key; give certificates only", blocks)
		}
		cert, err := parse(block, accept)
		if err == nil {
			b.Certificates = append(b.Certificates, cert)
			continue
		}
		if skipped++; skipped <= maxSkipped {
			b.Skipped = append(b.Skipped, fmt.Sprintf("%s: %s", name(blocks, block), err))
		}
	}
	if more := skipped - maxSkipped; more > 0 {
		b.Skipped = append(b.Skipped, fmt.Sprintf("%d more", more))
	}
	switch {
	case blocks == 0:
		return nil, errors.New("holds no PEM certificate")
	case len(b.Certificates) == 0:
		return nil, fmt.Errorf("holds no certificate that can be used: %s", strings.Join(b.Skipped, "; "))
	}
	return b, nil
}

// parse reads the certificate of a block.
func parse(block *pem.Block, accept func(*x509.Certificate) error) (*x509.Certificate, error) {
	if block.Type != certificate {
		return nil, errors.New("it is not a certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(text.Cut(err.Error(), maxSubject), "x509: "))
	}
	if accept != nil {
		if err := accept(cert); err != nil {
			return nil, err
		}
	}
	return cert, nil
}

// name returns a block's number in the bundle and its subject, if that can be read.
func name(number int, block *pem.Block) string {
	if block.Type != certificate {
		return fmt.Sprintf("PEM block %d (%q)", number, text.Cut(block.Type, maxSubject))
	}
	subject := subjectOf(block.Bytes)
	if subject == "" {
		return fmt.Sprintf("certificate %d", number)
	}
	return fmt.Sprintf("certificate %d (%q)", number, text.Cut(subject, maxSubject))
}

// subjectOf returns the subject of a certificate, which need not be valid (RFC 5280, section 4.1).
// It is empty if it cannot be read.
func subjectOf(der []byte) string {
	var cert, tbs, field asn1.RawValue
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return ""
	}
	if _, err := asn1.Unmarshal(cert.Bytes, &tbs); err != nil {
		return ""
	}
	// The subject follows version, which is optional, serial number, signature algorithm, issuer
	// and validity.
	rest := tbs.Bytes
	for before := 4; before >= 0; before-- {
		var err error
		if rest, err = asn1.Unmarshal(rest, &field); err != nil {
			return ""
		}
		if field.Class == asn1.ClassContextSpecific {
			before++
		}
	}
	var names pkix.RDNSequence
	if _, err := asn1.Unmarshal(field.FullBytes, &names); err != nil {
		return ""
	}
	return names.String()
}
