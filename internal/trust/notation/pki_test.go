package notation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/notaryproject/tspclient-go"
	"golang.org/x/crypto/ocsp"
)

// epoch is when the certificates and the clocks of tests begin.
var epoch = time.Now().Truncate(time.Second)

// certificate is a certificate with its key and its issuer.
type certificate struct {
	*x509.Certificate

	key    *ecdsa.PrivateKey
	issuer *certificate // nil: it is self-signed
}

// newKey returns a key on P-256.
func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var serial = struct {
	sync.Mutex

	last int64
}{last: 1000}

// issue returns a certificate by an issuer; nil: itself. edit may change it first.
func issue(t *testing.T, issuer *certificate, name string, edit ...func(*x509.Certificate)) *certificate {
	t.Helper()
	serial.Lock()
	serial.last++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.last), Subject: subjectNamed(name),
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	serial.Unlock()
	for _, e := range edit {
		e(template)
	}
	return certify(t, issuer, template, newKey(t))
}

// reissue returns another certificate of the same key, subject and issuer.
func (c *certificate) reissue(t *testing.T, edit ...func(*x509.Certificate)) *certificate {
	t.Helper()
	template := *c.Certificate
	template.SerialNumber = new(big.Int).Add(c.SerialNumber, big.NewInt(1<<32))
	for _, e := range edit {
		e(&template)
	}
	return certify(t, c.issuer, &template, c.key)
}

func certify(t *testing.T, issuer *certificate, template *x509.Certificate, key *ecdsa.PrivateKey) *certificate {
	t.Helper()
	c := &certificate{key: key, issuer: issuer}
	parent, by := template, c.key
	if issuer != nil {
		parent, by = issuer.Certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, c.key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	if c.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func subjectNamed(name string) pkix.Name {
	return pkix.Name{
		Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"acme"}, CommonName: name,
	}
}

// asCA makes a certificate one of a CA.
func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.ExtKeyUsage = true, true, nil
	c.KeyUsage, c.NotAfter = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, epoch.Add(365*24*time.Hour)
}

// until sets when a certificate expires.
func until(at time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = at }
}

// usages sets the extended key usages of a certificate.
func usages(all ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = all }
}

// chain returns the certificate and those above it.
func (c *certificate) chain() []*x509.Certificate {
	var all []*x509.Certificate
	for ; c != nil; c = c.issuer {
		all = append(all, c.Certificate)
	}
	return all
}

func (c *certificate) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// revoking is a real OCSP responder and server of CRLs, over http on loopback.
type revoking struct {
	*httptest.Server

	t  *testing.T
	mu sync.Mutex
	// issuer signs, unless by is set.
	issuer *certificate
	by     *certificate
	// embed is the certificate in OCSP responses; nil: none.
	embed   *x509.Certificate
	revoked map[string]bool // serial numbers
	unknown bool
	// algorithm signs OCSP responses; zero: the usual one.
	algorithm x509.SignatureAlgorithm
	from      time.Time
	end       time.Time // zero: none is said
	crl       func(*x509.RevocationList)
	reply     func(w http.ResponseWriter, r *http.Request) bool // answers itself
	asked     map[string]int                                    // by path
}

// newRevoking returns a server whose answers count for a day from the epoch.
func newRevoking(t *testing.T) *revoking {
	t.Helper()
	r := &revoking{
		t:       t,
		revoked: map[string]bool{},
		from:    epoch.Add(-time.Minute),
		end:     epoch.Add(24 * time.Hour),
		asked:   map[string]int{},
	}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// byOCSP and byCRL name the server in a certificate.
func (r *revoking) byOCSP(c *x509.Certificate) { c.OCSPServer = []string{r.URL + "/ocsp"} }

func (r *revoking) byCRL(c *x509.Certificate) { c.CRLDistributionPoints = []string{r.URL + "/ca.crl"} }

// requests returns how many requests there were since the last call.
func (r *revoking) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, one := range r.asked {
		n += one
	}
	clear(r.asked)
	return n
}

// ServeHTTP implements http.Handler.
func (r *revoking) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[req.URL.Path]++
	switch {
	case r.reply != nil && r.reply(w, req):
	case strings.HasSuffix(req.URL.Path, ".crl"):
		_, _ = w.Write(r.list())
	default:
		body, err := io.ReadAll(req.Body)
		if req.Method == http.MethodGet { // as notation itself does (RFC 6960, section A.1)
			encoded, _ := url.PathUnescape(strings.TrimPrefix(req.URL.EscapedPath(), "/ocsp/"))
			body, err = base64.StdEncoding.DecodeString(encoded)
		}
		if err != nil {
			return
		}
		asked, err := ocsp.ParseRequest(body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = w.Write(r.respond(asked.SerialNumber))
	}
}

// respond returns the OCSP response about a serial number.
func (r *revoking) respond(number *big.Int) []byte {
	template := ocsp.Response{
		Status: ocsp.Good, SerialNumber: number, ThisUpdate: r.from, NextUpdate: r.end, Certificate: r.embed,
		IssuerHash: crypto.SHA1, SignatureAlgorithm: r.algorithm,
	}
	switch {
	case r.unknown:
		template.Status = ocsp.Unknown
	case r.revoked[number.String()]:
		template.Status, template.RevokedAt = ocsp.Revoked, epoch.Add(-time.Minute)
	}
	by := r.issuer
	if r.by != nil {
		by = r.by
	}
	raw, err := ocsp.CreateResponse(r.issuer.Certificate, by.Certificate, template, by.key)
	if err != nil {
		r.t.Error(err)
	}
	return raw
}

// list returns the CRL.
func (r *revoking) list() []byte {
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: r.from, NextUpdate: r.end}
	for number := range r.revoked {
		n, _ := new(big.Int).SetString(number, 10)
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: n, RevocationTime: epoch.Add(-time.Minute),
		})
	}
	if r.crl != nil {
		r.crl(template)
	}
	by := r.issuer
	if r.by != nil {
		by = r.by
	}
	raw, err := x509.CreateRevocationList(rand.Reader, template, by.Certificate, by.key)
	if err != nil {
		r.t.Error(err)
	}
	return raw
}

// stamper returns RFC 3161 timestamps of a time, by a certificate.
type stamper struct {
	by *certificate
	at time.Time
}

// asAuthority makes a certificate one of a timestamp authority.
func asAuthority(c *x509.Certificate) {
	c.ExtKeyUsage = nil
	value := []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08} // id-kp-timeStamping
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
		Id: []int{2, 5, 29, 37}, Critical: true, Value: value,
	})
}

// stamp returns the token about a message.
func (s stamper) stamp(t *testing.T, message []byte) []byte {
	t.Helper()
	h := crypto.SHA256.New()
	h.Write(message)
	stamped := timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: h.Sum(nil), Time: s.at, Policy: []int{1, 2, 3},
		AddTSACertificate: true, SerialNumber: big.NewInt(1), Certificates: s.by.chain()[1:], Accuracy: time.Second,
	}
	raw, err := stamped.CreateResponseWithOpts(s.by.Certificate, s.by.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var resp tspclient.Response
	if err := resp.UnmarshalBinary(raw); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(resp.TimestampToken.FullBytes)
}

// hugePublic returns an RSA key of 16,384 bits, whose factors nobody needs.
func hugePublic() *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 16383)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
}
