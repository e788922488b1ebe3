package signers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	notationclient "github.com/countersign-dev/countersign/internal/testenv/notation"
)

// notationSigner signs with the real notation: ci in JWS, and qa in COSE. One CA has issued both
// certificates, whose subjects tell the roles apart.
type notationSigner struct {
	registry *distribution.Server
	client   *notationclient.Client
	ca       *x509.Certificate
}

func startNotation(ctx context.Context, o Options) (*notationSigner, error) {
	client, err := notationclient.New(ctx, o.Dir, o.Registry.CA, o.Progress)
	if err != nil {
		return nil, err
	}
	client.Verbose = o.Verbose
	ca, caKey, err := certificate(&x509.Certificate{
		Subject: pkix.Name{CommonName: "ACME CA"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	if err != nil {
		return nil, err
	}
	for _, role := range []string{CI, QA} {
		leaf, key, err := certificate(&x509.Certificate{
			Subject: pkix.Name{
				Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"acme"}, CommonName: role,
			},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}, ca, caKey)
		if err != nil {
			return nil, err
		}
		if err := client.AddKey(role, key, leaf, ca); err != nil {
			return nil, err
		}
	}
	return &notationSigner{registry: o.Registry, client: client, ca: ca}, nil
}

// Prepare implements Signer.
func (*notationSigner) Prepare(context.Context, string) error { return nil }

// Stop implements Signer.
func (*notationSigner) Stop() error { return nil }

// certificate returns a certificate with a new key, by a CA, or by itself if that is nil.
func certificate(template, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey,
	error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if ca == nil {
		ca, caKey = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return made, key, nil
}

// Sign implements Signer.
func (s *notationSigner) Sign(ctx context.Context, role string, on Image) error {
	envelope := map[string]string{CI: "jws", QA: "cose"}[role]
	return s.client.Sign(ctx, on.Repository+"@"+on.Digest, role, envelope)
}

// Spec implements Signer.
func (s *notationSigner) Spec() (v1alpha1.TrustRootSpec, error) {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Raw})
	spec := &v1alpha1.NotationSpec{}
	for _, role := range []string{CI, QA} {
		spec.Roles = append(spec.Roles, v1alpha1.NotationRole{
			Name: v1alpha1.RoleName(role), Certificates: []v1alpha1.PEM{v1alpha1.PEM(ca)},
			Identities: []v1alpha1.CertificateSubject{v1alpha1.CertificateSubject("C=US,ST=WA,O=acme,CN=" + role)},
		})
	}
	return v1alpha1.TrustRootSpec{Notation: spec, Registries: registriesOf(s.registry)}, nil
}
