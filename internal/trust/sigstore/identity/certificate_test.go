package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
)

func oid(t *testing.T, s string) asn1.ObjectIdentifier {
	t.Helper()
	id, err := x509.ParseOID(s)
	if err != nil {
		t.Fatal(err)
	}
	var out asn1.ObjectIdentifier
	der, err := id.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{asn1.TagOID, byte(len(der))}
	if _, err := asn1.Unmarshal(append(head, der...), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func der(t *testing.T, v any, params string) []byte {
	t.Helper()
	data, err := asn1.MarshalWithParams(v, params)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// issued returns a certificate as a CA would issue it, read back from its bytes.
func issued(t *testing.T, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	data, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestOf(t *testing.T) {
	v1 := func(s string) pkix.Extension { return pkix.Extension{Id: oid(t, oidIssuerV1), Value: []byte(s)} }
	v2 := func(s string) pkix.Extension {
		return pkix.Extension{Id: oid(t, oidIssuerV2), Value: der(t, s, "utf8")}
	}
	san := func(names ...asn1.RawValue) pkix.Extension {
		return pkix.Extension{Id: oid(t, oidSAN), Critical: true, Value: der(t, names, "")}
	}
	name := func(tag int, s string) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(s)}
	}
	user := func(id, s string) asn1.RawValue {
		value := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der(t, s, "utf8")}
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagOtherName, IsCompound: true,
			Bytes: append(der(t, oid(t, id), ""), der(t, value, "")...)}
	}
	parsed, err := url.Parse(workflow)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		template x509.Certificate
		want     Identity
		err      string
	}{
		"a workflow": {x509.Certificate{URIs: []*url.URL{parsed},
			ExtraExtensions: []pkix.Extension{v1(issuerOfCI), v2(issuerOfCI)}}, Identity{issuerOfCI, workflow}, ""},
		"the old extension alone": {x509.Certificate{URIs: []*url.URL{parsed},
			ExtraExtensions: []pkix.Extension{v1(issuerOfCI)}}, Identity{issuerOfCI, workflow}, ""},
		"the new extension alone": {x509.Certificate{URIs: []*url.URL{parsed},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{issuerOfCI, workflow}, ""},
		"an email address": {x509.Certificate{EmailAddresses: []string{"qa@example.com"},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{issuerOfCI, "qa@example.com"}, ""},
		"a user name": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI),
			san(user(oidOtherName, "qa!example.com"))}}, Identity{issuerOfCI, "qa!example.com"}, ""},
		"a URL as it is": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI),
			san(name(tagURI, "HTTPS://github.com/acme/%61pp"))}},
			Identity{issuerOfCI, "HTTPS://github.com/acme/%61pp"}, ""},
		"no issuer": {x509.Certificate{URIs: []*url.URL{parsed}}, Identity{}, "names no OpenID Connect issuer"},
		"two issuers": {x509.Certificate{URIs: []*url.URL{parsed},
			ExtraExtensions: []pkix.Extension{v1("https://login.example.com"), v2(issuerOfCI)}}, Identity{},
			"names two OpenID Connect issuers"},
		"an issuer that is no string": {x509.Certificate{URIs: []*url.URL{parsed},
			ExtraExtensions: []pkix.Extension{{Id: oid(t, oidIssuerV2), Value: []byte(issuerOfCI)}}}, Identity{},
			"names an OpenID Connect issuer that is no DER string"},
		"more behind the issuer": {x509.Certificate{URIs: []*url.URL{parsed}, ExtraExtensions: []pkix.Extension{
			{Id: oid(t, oidIssuerV2), Value: append(der(t, issuerOfCI, "utf8"), der(t, issuerOfCI, "utf8")...)}}},
			Identity{},
			"names an OpenID Connect issuer that is no DER string"},
		"an empty issuer": {x509.Certificate{URIs: []*url.URL{parsed},
			ExtraExtensions: []pkix.Extension{v2("")}}, Identity{}, "has an issuer that is empty"},
		"no subject": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{},
			"has no subject alternative name"},
		"two subjects": {x509.Certificate{URIs: []*url.URL{parsed}, EmailAddresses: []string{"qa@example.com"},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{},
			"has 2 subject alternative names, where one must be the subject"},
		"two of one kind": {x509.Certificate{EmailAddresses: []string{"qa@example.com", "ci@example.com"},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{},
			"has 2 subject alternative names, where one must be the subject"},
		"a host beside it": {x509.Certificate{URIs: []*url.URL{parsed}, DNSNames: []string{"example.com"},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{},
			"has 2 subject alternative names, where one must be the subject"},
		"a host": {x509.Certificate{DNSNames: []string{"example.com"},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{},
			"has a subject alternative name that is no URI, email address or user name"},
		"an address": {x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
			ExtraExtensions: []pkix.Extension{v2(issuerOfCI)}}, Identity{},
			"has a subject alternative name that is no URI, email address or user name"},
		"a name of another type": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI),
			san(user("1.3.6.1.4.1.311.20.2.3", "qa@example.com"))}}, Identity{},
			"has a user name of the unknown type 1.3.6.1.4.1.311.20.2.3"},
		"an empty subject": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI),
			san(user(oidOtherName, ""))}}, Identity{}, "has a subject that is empty"},
		"a line break": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI),
			san(user(oidOtherName, "qa\n@example.com"))}}, Identity{},
			"has a subject that has a character that cannot be printed"},
		"long": {x509.Certificate{ExtraExtensions: []pkix.Extension{v2(issuerOfCI),
			san(user(oidOtherName, strings.Repeat("a", MaxLength+1)))}}, Identity{},
			"has a subject that is longer than 2048 bytes"},
	}
	for label, c := range cases {
		t.Run(label, func(t *testing.T) {
			got, err := Of(issued(t, &c.template))
			if err != nil && err.Error() != c.err || err == nil && c.err != "" || got != c.want {
				t.Errorf("got %+v, %v; want %+v, %q", got, err, c.want, c.err)
			}
		})
	}
}

// A certificate that was not read by crypto/x509 may have an extension twice.
func TestOfRefusesAnExtensionTwice(t *testing.T) {
	cert := issued(t, &x509.Certificate{EmailAddresses: []string{"qa@example.com"},
		ExtraExtensions: []pkix.Extension{{Id: oid(t, oidIssuerV1), Value: []byte(issuerOfCI)}}})
	if _, err := Of(cert); err != nil {
		t.Fatal(err)
	}
	for _, e := range cert.Extensions {
		if id := e.Id.String(); id != oidSAN && id != oidIssuerV1 {
			continue
		}
		twice := *cert
		twice.Extensions = append(append([]pkix.Extension{}, cert.Extensions...), e)
		if _, err := Of(&twice); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: got error %v, want that it is there twice", e.Id, err)
		}
	}
}
