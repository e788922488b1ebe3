// Package tlstest makes certificate authorities and certificates for one test run. It also makes
// certificates that a verifier must refuse.
package tlstest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const lifetime = 7 * 24 * time.Hour // of certificates

// CA is a certificate authority.
type CA struct {
	// PEM is its certificate.
	PEM  []byte
	cert *x509.Certificate
	key  crypto.Signer
}

// Certificate is a certificate with its key, issued by a CA.
type Certificate struct {
	CertPEM, KeyPEM []byte
	TLS             tls.Certificate
}

// NewCA makes a certificate authority.
func NewCA(name string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a CA key: %w", err)
	}
	return newCA(name, key)
}

// Renew makes another certificate of the CA, with the same name and key.
func (ca *CA) Renew() (*CA, error) { return newCA(ca.cert.Subject.CommonName, ca.key) }

func newCA(name string, key crypto.Signer) (*CA, error) {
	template, err := certificate(name)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing a CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back a CA certificate: %w", err)
	}
	return &CA{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert: cert, key: key}, nil
}

// Pool returns a pool that holds only the CA's certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	return pool
}

// Issue makes a certificate for a server or a client. Hosts are DNS names or IP addresses; without
// hosts the certificate is for localhost, 127.0.0.1 and ::1.
func (ca *CA) Issue(subject pkix.Name, hosts ...string) (*Certificate, error) {
	return ca.issue(subject, time.Now().Add(lifetime), orLocalhost(hosts))
}

// IssueExpired makes a certificate that expired a minute ago.
func (ca *CA) IssueExpired(subject pkix.Name, hosts ...string) (*Certificate, error) {
	return ca.issue(subject, time.Now().Add(-time.Minute), orLocalhost(hosts))
}

func orLocalhost(hosts []string) []string {
	if len(hosts) == 0 {
		return []string{"localhost", "127.0.0.1", "::1"}
	}
	return hosts
}

// IssueNameless makes a certificate without a subject alternative name.
func (ca *CA) IssueNameless(subject pkix.Name) (*Certificate, error) {
	return ca.issue(subject, time.Now().Add(lifetime), nil)
}

func (ca *CA) issue(subject pkix.Name, until time.Time, hosts []string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key for %s: %w", subject.CommonName, err)
	}
	template, err := certificate(subject.CommonName)
	if err != nil {
		return nil, err
	}
	template.Subject, template.NotAfter = subject, until
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", subject.CommonName, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of %s: %w", subject.CommonName, err)
	}
	c := &Certificate{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}
	if c.TLS, err = tls.X509KeyPair(c.CertPEM, c.KeyPEM); err != nil {
		return nil, fmt.Errorf("pairing the certificate of %s: %w", subject.CommonName, err)
	}
	return c, nil
}

// SelfSigned makes a self-signed certificate for code signing, in PEM.
func SelfSigned(name string, key crypto.Signer) ([]byte, error) {
	template, err := certificate(name)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// OddCertificate returns the first certificate of a PEM text, changed to a negative serial number.
// Old CAs have issued such certificates, and crypto/x509 refuses them. Its signature is not valid.
func OddCertificate(certificate []byte) []byte {
	block, _ := pem.Decode(certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	serial := cert.SerialNumber.Bytes()
	at := bytes.Index(block.Bytes, serial)
	if serial[0]&0x80 != 0 {
		at-- // to the zero byte that makes it positive
	}
	odd := bytes.Clone(block.Bytes)
	odd[at] = 0x80 // any other first byte of a negative number might not be the minimal encoding
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: odd})
}

// Write writes the certificate and key to <dir>/<name>.crt and .key, and returns both paths.
func (c *Certificate) Write(dir, name string) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := os.WriteFile(certFile, c.CertPEM, 0o644); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(keyFile, c.KeyPEM, 0o600)
}

func certificate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
	}, nil
}
