// Package cabundle reads bundles of CA certificates in PEM.
//
// Bundles of the field hold certificates that crypto/x509 refuses: with a negative serial number,
// for example. Read passes over such a one and says which it is, so that the others can be used.
// That never widens a bundle. A bundle without any usable certificate is an error, and so is one
// that holds a private key. Nothing of a private key is ever in an error. The package is pure.
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
	// maxSkipped bounds how many skipped blocks are named.
	maxSkipped = 5
	// maxSubject bounds the subject of a skipped certificate, in bytes.
	maxSubject  = 120
	certificate = "CERTIFICATE"
)

// Bundle is what a bundle comes to.
type Bundle struct {
	// Certificates are those that can be used, in their order; at least one.
	Certificates []*x509.Certificate
	// Skipped says of each block that was passed over which it is and why: of the first few.
	Skipped []string
}

// Pool returns the certificates as crypto/x509 takes them.
func (b *Bundle) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range b.Certificates {
		pool.AddCert(cert)
	}
	return pool
}

// Read reads a bundle of at most limit blocks; 0: any number. accept says why a certificate is of
// no use, nil where it is; a nil accept takes every one.
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

// name says which block of a bundle it is: by its place, and by its subject as far as that can be
// read.
func name(place int, block *pem.Block) string {
	if block.Type != certificate {
		return fmt.Sprintf("PEM block %d (%q)", place, text.Cut(block.Type, maxSubject))
	}
	subject := subjectOf(block.Bytes)
	if subject == "" {
		return fmt.Sprintf("certificate %d", place)
	}
	return fmt.Sprintf("certificate %d (%q)", place, text.Cut(subject, maxSubject))
}

// subjectOf returns the subject of a certificate that need not be valid (RFC 5280, section 4.1),
// empty where it cannot be read.
func subjectOf(der []byte) string {
	var cert, tbs, field asn1.RawValue
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return ""
	}
	if _, err := asn1.Unmarshal(cert.Bytes, &tbs); err != nil {
		return ""
	}
	// Before it come the version, which may be left out, serial number, signature algorithm, issuer
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
