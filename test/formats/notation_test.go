package formats

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	notationclient "github.com/countersign-dev/countersign/internal/testenv/notation"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notation"
)

// notationSigner signs with the real notation: ci in JWS, and qa in COSE. One CA has issued both
// certificates, whose subjects tell the roles apart.
type notationSigner struct {
	registry *distribution.Server
	client   *notationclient.Client
	ca       *x509.Certificate
}

func newNotation(t *testing.T, registry *distribution.Server) *notationSigner {
	t.Helper()
	s := &notationSigner{registry: registry, client: notationclient.NewClient(t, registry.CA)}
	ca, caKey := certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "ACME CA"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	s.ca = ca
	for _, role := range []string{"ci", "qa"} {
		leaf, key := certificate(t, &x509.Certificate{
			Subject: pkix.Name{
				Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"acme"}, CommonName: role,
			},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}, ca, caKey)
		if err := s.client.AddKey(role, key, leaf, ca); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// certificate returns a certificate with a new key, by a CA, or by itself if that is nil.
func certificate(t *testing.T, template, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate,
	*ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if ca == nil {
		ca, caKey = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

func (*notationSigner) format() trust.Format { return &notation.Format{} }

func (s *notationSigner) sign(ctx context.Context, role string, on image) error {
	envelope := map[string]string{"ci": "jws", "qa": "cose"}[role]
	return s.client.Sign(ctx, on.repository+"@"+on.digest, role, envelope)
}

func (s *notationSigner) spec() (v1alpha1.TrustRootSpec, error) {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Raw})
	spec := &v1alpha1.NotationSpec{}
	for _, role := range []string{"ci", "qa"} {
		spec.Roles = append(spec.Roles, v1alpha1.NotationRole{
			Name: v1alpha1.RoleName(role), Certificates: []v1alpha1.PEM{v1alpha1.PEM(ca)},
			Identities: []v1alpha1.CertificateSubject{v1alpha1.CertificateSubject("C=US,ST=WA,O=acme,CN=" + role)},
		})
	}
	return v1alpha1.TrustRootSpec{Notation: spec, Registries: registriesOf(s.registry)}, nil
}

func (*notationSigner) broken(spec *v1alpha1.TrustRootSpec) { spec.Registries = nil }
