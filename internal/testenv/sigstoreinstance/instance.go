// Package sigstoreinstance makes what an instance of Sigstore issues: certificates of its authority
// (with the timestamp of its certificate transparency log), entries of its transparency logs of
// Rekor v1 and v2, and signed timestamps. Only its timestamp authority is a server too. Every part
// can be made with what is wrong with it, and all times are the caller's.
package sigstoreinstance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// lifetime is for how long the authorities and logs are valid, before and after Time.
const lifetime = 5 * 365 * 24 * time.Hour

// Instance is an instance of Sigstore. Its fields may be read, and the keys replaced.
type Instance struct {
	t TB
	// Time is about when everything happens: a day before the instance was made.
	Time time.Time

	Fulcio, TSA      *Authority
	RekorV1, RekorV2 *Log
	CT               *Log
}

// Authority is a certificate authority with an intermediate, which signs.
type Authority struct {
	URI                string
	Root, Intermediate *x509.Certificate
	key                *ecdsa.PrivateKey
	// Leaf is the certificate of a timestamp authority.
	Leaf    *x509.Certificate
	leafKey *ecdsa.PrivateKey
}

// Log is a log and its key.
type Log struct {
	URL        string
	Key        *ecdsa.PrivateKey
	Start, End time.Time // of the key; the zero End is none
}

// TB is the part of testing.TB that an instance uses, so that a command can make one too. Fatal
// does not return.
type TB interface {
	Fatal(args ...any)
	Helper()
}

// New returns an instance with new keys.
func New(t TB) *Instance {
	t.Helper()
	i := &Instance{t: t, Time: time.Now().Add(-24 * time.Hour).Truncate(time.Second)}
	i.Fulcio = i.authority("https://fulcio.example.com", x509.ExtKeyUsageCodeSigning)
	i.TSA = i.authority("https://tsa.example.com", x509.ExtKeyUsageTimeStamping)
	i.TSA.leafKey = i.key()
	i.TSA.Leaf = i.sign(&x509.Certificate{
		SerialNumber: i.serial(), Subject: pkix.Name{CommonName: "tsa"}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: i.Time.Add(-lifetime), NotAfter: i.Time.Add(lifetime),
		ExtraExtensions: []pkix.Extension{i.timestamping()},
	}, i.TSA.Intermediate, i.TSA.leafKey.Public(), i.TSA.key)
	i.RekorV1, i.RekorV2 = i.log("https://rekor.example.com"), i.log("https://log2.rekor.example.com")
	i.CT = i.log("https://ct.example.com")
	return i
}

// timestamping is the critical extended key usage of a timestamp authority (RFC 3161, 2.3).
func (i *Instance) timestamping() pkix.Extension {
	value, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	i.check(err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: value}
}

func (i *Instance) log(address string) *Log {
	return &Log{URL: address, Key: i.key(), Start: i.Time.Add(-lifetime)}
}

// ID is the ID of the log: the SHA-256 of its key.
func (l *Log) ID() []byte { return keyID(l.Key.Public()) }

// host is the name of the log in its checkpoints.
func (l *Log) host() string {
	u, err := url.Parse(l.URL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func keyID(public crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err) // all keys are ECDSA
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

func (i *Instance) authority(uri string, usage x509.ExtKeyUsage) *Authority {
	rootKey := i.key()
	a := &Authority{URI: uri, key: i.key()}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: i.serial(), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: i.Time.Add(-lifetime), NotAfter: i.Time.Add(lifetime),
		}
	}
	template := ca(uri)
	a.Root = i.sign(template, template, rootKey.Public(), rootKey)
	template = ca(uri + " intermediate")
	template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	a.Intermediate = i.sign(template, a.Root, a.key.Public(), rootKey)
	return a
}

func (i *Instance) key() *ecdsa.PrivateKey {
	i.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i.check(err)
	return k
}

func (i *Instance) serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	i.check(err)
	return n
}

func (i *Instance) sign(template, parent *x509.Certificate, public crypto.PublicKey,
	by crypto.Signer) *x509.Certificate {
	i.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	i.check(err)
	cert, err := x509.ParseCertificate(der)
	i.check(err)
	return cert
}

func (i *Instance) check(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

// Certificate says what a certificate of the instance has.
type Certificate struct {
	Issuer string
	// Subject is a URI if it has "://", and else an email address.
	Subject string
	// NotBefore is Time by default. The certificate is valid for ten minutes.
	NotBefore time.Time
	// CT is the log whose timestamp it has, by default that of the instance. NoSCT leaves it out,
	// and BadSCT makes one that is not valid.
	CT            *Log
	NoSCT, BadSCT bool
	// Edit changes the rest.
	Edit func(*x509.Certificate)
}

// Certify issues a certificate for a key.
func (i *Instance) Certify(public crypto.PublicKey, c Certificate) *x509.Certificate {
	i.t.Helper()
	if c.NotBefore.IsZero() {
		c.NotBefore = i.Time
	}
	issuer, err := asn1.MarshalWithParams(c.Issuer, "utf8")
	i.check(err)
	template := &x509.Certificate{
		SerialNumber: i.serial(), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		NotBefore:   c.NotBefore, NotAfter: c.NotBefore.Add(10 * time.Minute),
		ExtraExtensions: []pkix.Extension{ // the issuer, as older and as newer clients read it
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(c.Issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer},
		},
	}
	if strings.Contains(c.Subject, "://") {
		u, err := url.Parse(c.Subject)
		i.check(err)
		template.URIs = []*url.URL{u}
	} else {
		template.EmailAddresses = []string{c.Subject}
	}
	if c.Edit != nil {
		c.Edit(template)
	}
	if c.NoSCT {
		return i.sign(template, i.Fulcio.Intermediate, public, i.Fulcio.key)
	}
	return i.withSCT(template, public, c)
}

// Deepen adds n intermediate certificates below that of the certificate authority, and returns
// them, the lowest first. The lowest issues from then on.
func (i *Instance) Deepen(n int) []*x509.Certificate {
	i.t.Helper()
	var all []*x509.Certificate
	for range n {
		key := i.key()
		template := &x509.Certificate{
			SerialNumber: i.serial(), Subject: pkix.Name{CommonName: i.serial().String()}, IsCA: true,
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
			NotBefore:   i.Time.Add(-lifetime), NotAfter: i.Time.Add(lifetime),
		}
		i.Fulcio.Intermediate = i.sign(template, i.Fulcio.Intermediate, key.Public(), i.Fulcio.key)
		i.Fulcio.key = key
		all = append([]*x509.Certificate{i.Fulcio.Intermediate}, all...)
	}
	return all
}

// PEM returns certificates in PEM.
func PEM(certs ...*x509.Certificate) string {
	var all strings.Builder
	for _, cert := range certs {
		all.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return all.String()
}

// TrustedRoot returns the trusted_root.json of the instance, after edits.
func (i *Instance) TrustedRoot(edits ...func(*prototrust.TrustedRoot)) []byte {
	i.t.Helper()
	r := &prototrust.TrustedRoot{
		MediaType:              root.TrustedRootMediaType01,
		CertificateAuthorities: []*prototrust.CertificateAuthority{i.Fulcio.entry(i.Time)},
		TimestampAuthorities:   []*prototrust.CertificateAuthority{i.TSA.entry(i.Time)},
		Tlogs:                  []*prototrust.TransparencyLogInstance{i.RekorV1.entry(), i.RekorV2.entry()},
		Ctlogs:                 []*prototrust.TransparencyLogInstance{i.CT.entry()},
	}
	for _, edit := range edits {
		edit(r)
	}
	text, err := protojson.Marshal(r)
	i.check(err)
	return text
}

func (a *Authority) entry(at time.Time) *prototrust.CertificateAuthority {
	chain := []*x509.Certificate{a.Intermediate, a.Root}
	if a.Leaf != nil {
		chain = append([]*x509.Certificate{a.Leaf}, chain...)
	}
	entry := &prototrust.CertificateAuthority{
		Uri: a.URI, CertChain: &protocommon.X509CertificateChain{},
		ValidFor: &protocommon.TimeRange{Start: timestamppb.New(at.Add(-lifetime))},
	}
	for _, cert := range chain {
		entry.CertChain.Certificates = append(entry.CertChain.Certificates,
			&protocommon.X509Certificate{RawBytes: cert.Raw})
	}
	return entry
}

func (l *Log) entry() *prototrust.TransparencyLogInstance {
	der, err := x509.MarshalPKIXPublicKey(l.Key.Public())
	if err != nil {
		panic(err) // all keys are ECDSA
	}
	valid := &protocommon.TimeRange{Start: timestamppb.New(l.Start)}
	if !l.End.IsZero() {
		valid.End = timestamppb.New(l.End)
	}
	return &prototrust.TransparencyLogInstance{
		BaseUrl: l.URL, HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
		LogId: &protocommon.LogId{KeyId: l.ID()},
		PublicKey: &protocommon.PublicKey{
			RawBytes: der, KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, ValidFor: valid,
		},
	}
}
