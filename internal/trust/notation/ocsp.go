package notation

import (
	"bytes"
	"crypto"
	"crypto/sha1" //nolint:gosec // names the issuer in an OCSP request (RFC 6960, section 4.1.1), and protects nothing
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// clockSkew is by how much the clock of a responder may be ahead.
const clockSkew = 5 * time.Minute

// hashNamed returns the hash by which a response may name the issuer.
func hashNamed(id asn1.ObjectIdentifier) (newHash func() hash.Hash, ok bool) {
	newHash, ok = map[string]func() hash.Hash{
		"1.3.14.3.2.26": sha1.New, "2.16.840.1.101.3.4.2.1": sha256.New,
		"2.16.840.1.101.3.4.2.2": sha512.New384, "2.16.840.1.101.3.4.2.3": sha512.New,
	}[id.String()]
	return newHash, ok
}

// unsafeHash reports whether signatures of an algorithm can be forged, or are of an unknown one.
func unsafeHash(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.UnknownSignatureAlgorithm:
		return true
	}
	return false
}

// requestOCSP returns the request about a certificate. It names the issuer by SHA-1, the only hash
// that all responders know.
func requestOCSP(cert, issuer *x509.Certificate) ([]byte, error) {
	return ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
}

// readOCSP verifies a response about a certificate (RFC 6960, section 3.2): the issuer has signed
// it, or a certificate that the issuer made for that purpose alone.
func readOCSP(raw []byte, cert, issuer *x509.Certificate, now time.Time) (standing, error) {
	resp, err := ocsp.ParseResponseForCert(raw, cert, issuer)
	if err != nil {
		return standing{}, fmt.Errorf("the OCSP response does not verify: %s", shown(err.Error()))
	}
	if unsafeHash(resp.SignatureAlgorithm) {
		return standing{}, errors.New("the OCSP response is signed with a hash that is no longer safe")
	}
	if err := checkResponder(resp, issuer, now); err != nil {
		return standing{}, err
	}
	if err := checkCertID(resp.TBSResponseData, cert, issuer); err != nil {
		return standing{}, err
	}
	s := standing{from: resp.ThisUpdate, end: resp.NextUpdate}
	if err := s.check("the OCSP response", now); err != nil {
		return standing{}, err
	}
	switch resp.Status {
	case ocsp.Good:
	case ocsp.Revoked:
		s.revoked = resp.RevokedAt
	default:
		return standing{}, errors.New("the OCSP responder does not know the certificate")
	}
	return s, nil
}

// checkResponder checks the certificate of a responder other than the issuer. Without this, any
// certificate of the issuer could vouch for itself.
func checkResponder(resp *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	by := resp.Certificate
	switch {
	case by == nil || by.Equal(issuer):
		return nil
	case !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return fmt.Errorf("the OCSP response is signed by %q, which is no OCSP responder", shownName(by.Subject))
	case !bytes.Equal(by.RawIssuer, issuer.RawSubject):
		return fmt.Errorf("the OCSP response is signed by %q, a responder of another issuer", shownName(by.Subject))
	case unsafeHash(by.SignatureAlgorithm): // the library accepts SHA-1
		return fmt.Errorf("the certificate %q of the OCSP responder is signed with a hash that is no longer safe",
			shownName(by.Subject))
	case now.Before(by.NotBefore) || !now.Before(by.NotAfter):
		return fmt.Errorf("the certificate %q of the OCSP responder is not valid now", shownName(by.Subject))
	}
	return nil
}

// certID names a certificate in a response (RFC 6960, section 4.1.1).
type certID struct {
	Hash   pkix.AlgorithmIdentifier
	Name   []byte
	Key    []byte
	Serial asn1.RawValue
}

// checkCertID checks that the response is about a certificate of the issuer. The library compares
// only the serial number, which certificates of several issuers may have.
func checkCertID(data []byte, cert, issuer *x509.Certificate) error {
	unreadable := errors.New("the OCSP response names no certificate that can be read")
	singles, err := singleResponses(data)
	if err != nil {
		return unreadable
	}
	serial, err := asn1.Marshal(cert.SerialNumber)
	if err != nil {
		return unreadable
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &spki); err != nil {
		return unreadable
	}
	for _, single := range singles {
		var id certID
		if _, err := asn1.Unmarshal(single.Bytes, &id); err != nil {
			return unreadable
		}
		if !bytes.Equal(id.Serial.FullBytes, serial) {
			continue
		}
		// The library has read the first of this serial number.
		newHash, ok := hashNamed(id.Hash.Algorithm)
		if !ok || !bytes.Equal(id.Name, sumOf(newHash, issuer.RawSubject)) ||
			!bytes.Equal(id.Key, sumOf(newHash, spki.Key.RightAlign())) {
			return errors.New("the OCSP response is about a certificate of another issuer")
		}
		return nil
	}
	return unreadable
}

func sumOf(newHash func() hash.Hash, data []byte) []byte {
	h := newHash()
	h.Write(data)
	return h.Sum(nil)
}

// singleResponses returns the entries of a response's data (RFC 6960, section 4.2.1).
func singleResponses(data []byte) ([]asn1.RawValue, error) {
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(data, &whole); err != nil {
		return nil, err
	}
	var part asn1.RawValue
	for rest := whole.Bytes; len(rest) > 0; {
		var err error
		if rest, err = asn1.Unmarshal(rest, &part); err != nil {
			return nil, err
		}
		if part.Class != asn1.ClassUniversal || part.Tag != asn1.TagSequence {
			continue // the version, the responder's ID or the time
		}
		var all []asn1.RawValue
		_, err = asn1.Unmarshal(part.FullBytes, &all)
		return all, err
	}
	return nil, errors.New("no entries")
}
