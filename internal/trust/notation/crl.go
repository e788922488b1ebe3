package notation

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidIssuingDistributionPoint is the extension that says which certificates a CRL is about (RFC
// 5280, section 5.2.5).
func oidIssuingDistributionPoint() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 28} }

// readCRL verifies a CRL from a URL and looks a certificate up in it (RFC 5280, section 6.3). A CRL
// that is not about all reasons, and about this kind of certificate, is an error. A delta CRL is
// one: it lists only what has changed.
func readCRL(raw []byte, from string, cert, issuer *x509.Certificate, now time.Time) (standing, error) {
	list, err := x509.ParseRevocationList(raw)
	if err != nil {
		return standing{}, fmt.Errorf("the CRL cannot be read: %s", shown(err.Error()))
	}
	if unsafeHash(list.SignatureAlgorithm) {
		return standing{}, errors.New("the CRL is signed with a hash that is no longer safe")
	}
	if !bytes.Equal(list.RawIssuer, issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil {
		return standing{}, fmt.Errorf("the CRL is not signed by the issuer %q", shownName(issuer.Subject))
	}
	for _, extension := range list.Extensions {
		switch {
		case extension.Id.Equal(oidIssuingDistributionPoint()):
			if err := checkScope(extension.Value, from, cert); err != nil {
				return standing{}, err
			}
		case extension.Critical:
			return standing{}, fmt.Errorf(
				"the CRL has the critical extension %s, which is not understood",
				extension.Id,
			)
		}
	}
	s := standing{from: list.ThisUpdate, end: list.NextUpdate}
	if err := s.check("the CRL", now); err != nil {
		return standing{}, err
	}
	for i := range list.RevokedCertificateEntries {
		if entry := &list.RevokedCertificateEntries[i]; entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			s.revoked = entry.RevocationTime
			break
		}
	}
	return s, nil
}

// checkScope checks that a CRL covers a certificate. A CRL without a scope covers all of its
// issuer.
func checkScope(value []byte, from string, cert *x509.Certificate) error {
	var scope, name cryptobyte.String
	input := cryptobyte.String(value)
	unreadable := errors.New("the CRL has a scope that cannot be read")
	if !input.ReadASN1(&scope, casn1.SEQUENCE) || !input.Empty() {
		return unreadable
	}
	var named bool
	if !scope.ReadOptionalASN1(&name, &named, casn1.Tag(0).Constructed().ContextSpecific()) {
		return unreadable
	}
	if named && !namesURL(name, from) {
		return errors.New("the CRL is of another distribution point")
	}
	for !scope.Empty() {
		var flag cryptobyte.String
		var tag casn1.Tag
		if !scope.ReadAnyASN1(&flag, &tag) {
			return unreadable
		}
		set := len(flag) != 1 || flag[0] != 0
		switch {
		case !set:
		case tag == casn1.Tag(1).ContextSpecific() && !cert.IsCA: // onlyContainsUserCerts
		case tag == casn1.Tag(2).ContextSpecific() && cert.IsCA: // onlyContainsCACerts
		default:
			return errors.New("the CRL does not cover this kind of certificate, or not all reasons")
		}
	}
	return nil
}

// namesURL reports whether the name of a distribution point has a URL.
func namesURL(point cryptobyte.String, url string) bool {
	var names cryptobyte.String
	if !point.ReadASN1(&names, casn1.Tag(0).Constructed().ContextSpecific()) {
		return false // relative to the issuer, which is no URL
	}
	for !names.Empty() {
		var name cryptobyte.String
		var tag casn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return false
		}
		if tag == casn1.Tag(6).ContextSpecific() && string(name) == url {
			return true
		}
	}
	return false
}
