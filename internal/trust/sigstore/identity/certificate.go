package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The extensions of Sigstore's certificates, as Fulcio documents them
// (docs/oid-info.md in its repository), and the subject alternative names (RFC 5280, 4.2.1.6).
const (
	oidIssuerV1  = "1.3.6.1.4.1.57264.1.1" // the issuer, as it is
	oidOtherName = "1.3.6.1.4.1.57264.1.7" // the type of a user name among the alternative names
	oidIssuerV2  = "1.3.6.1.4.1.57264.1.8" // the issuer, as a DER string
	oidSAN       = "2.5.29.17"
)

// The tags of a GeneralName that can be a subject.
const (
	tagOtherName = 0
	tagEmail     = 1
	tagURI       = 6
)

// Of reads the identity of a certificate. The error says why it has none, in the rest of a sentence
// that begins with the certificate.
//
// Both extensions may name the issuer, and must then agree. There must be exactly one subject
// alternative name: which of several is the subject is each reader's own choice. The CAs of
// Sigstore issue no other certificates.
func Of(cert *x509.Certificate) (Identity, error) {
	var id Identity
	var err error
	if id.Issuer, err = issuer(cert.Extensions); err != nil {
		return Identity{}, err
	}
	names, err := only(cert.Extensions, oidSAN)
	if err != nil {
		return Identity{}, err
	}
	if names == nil {
		return Identity{}, errors.New("has no subject alternative name")
	}
	if id.Subject, err = subject(names); err != nil {
		return Identity{}, err
	}
	if err := checkText(id.Issuer); err != nil {
		return Identity{}, fmt.Errorf("has an issuer that %w", err)
	}
	if err := checkText(id.Subject); err != nil {
		return Identity{}, fmt.Errorf("has a subject that %w", err)
	}
	return id, nil
}

// only returns the value of an extension, nil if there is none.
func only(extensions []pkix.Extension, oid string) ([]byte, error) {
	var value []byte
	for _, e := range extensions {
		if e.Id.String() != oid {
			continue
		}
		if value != nil {
			return nil, fmt.Errorf("has the extension %s twice", oid)
		}
		value = append([]byte{}, e.Value...)
	}
	return value, nil
}

// issuer reads the OpenID Connect issuer.
func issuer(extensions []pkix.Extension) (string, error) {
	v1, err := only(extensions, oidIssuerV1)
	if err != nil {
		return "", err
	}
	v2, err := only(extensions, oidIssuerV2)
	if err != nil {
		return "", err
	}
	if v2 == nil {
		if v1 == nil {
			return "", errors.New("names no OpenID Connect issuer")
		}
		return string(v1), nil
	}
	var s string
	if rest, err := asn1.Unmarshal(v2, &s); err != nil || len(rest) > 0 {
		return "", errors.New("names an OpenID Connect issuer that is no DER string")
	}
	if v1 != nil && string(v1) != s {
		return "", errors.New("names two OpenID Connect issuers")
	}
	return s, nil
}

// subject reads the only subject alternative name. The text is that of the certificate: URLs are
// not normalised.
func subject(names []byte) (string, error) {
	var list []asn1.RawValue
	if rest, err := asn1.Unmarshal(names, &list); err != nil || len(rest) > 0 {
		return "", errors.New("has subject alternative names that are not valid")
	}
	if len(list) != 1 {
		return "", fmt.Errorf("has %d subject alternative names, where one must be the subject", len(list))
	}
	name := list[0]
	if name.Class != asn1.ClassContextSpecific {
		return "", errors.New("has subject alternative names that are not valid")
	}
	switch {
	case !name.IsCompound && (name.Tag == tagEmail || name.Tag == tagURI):
		return string(name.Bytes), nil
	case name.IsCompound && name.Tag == tagOtherName:
		return userName(name)
	}
	return "", errors.New("has a subject alternative name that is no URI, email address or user name")
}

// userName reads the otherName of Fulcio's certificates for user names.
func userName(name asn1.RawValue) (string, error) {
	var other struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"utf8,explicit,tag:0"`
	}
	rest, err := asn1.UnmarshalWithParams(name.FullBytes, &other, "tag:0")
	if err != nil || len(rest) > 0 || !utf8.ValidString(other.Value) {
		return "", errors.New("has a user name that is not valid")
	}
	if other.ID.String() != oidOtherName {
		return "", fmt.Errorf("has a user name of the unknown type %s", other.ID)
	}
	return other.Value, nil
}
