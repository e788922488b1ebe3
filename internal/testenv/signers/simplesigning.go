package signers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/distribution"
	"github.com/countersign-dev/countersign/internal/testenv/tlstest"
)

// simpleSigner signs with OpenPGP keys, and puts the signatures on a lookaside server.
type simpleSigner struct {
	registry *distribution.Server
	folder   string
	url      string
	ca       *tlstest.CA
	keys     map[string]*openpgp.Entity
	server   *httptest.Server
}

func startSimpleSigning(o Options) (_ *simpleSigner, err error) {
	s := &simpleSigner{registry: o.Registry, folder: o.Dir, keys: map[string]*openpgp.Entity{}}
	if s.ca, err = tlstest.NewCA("lookaside"); err != nil {
		return nil, err
	}
	cert, err := s.ca.Issue(pkix.Name{CommonName: "lookaside"})
	if err != nil {
		return nil, err
	}
	for _, role := range []string{CI, QA} {
		if s.keys[role], err = openpgp.NewEntity(role, "", role+"@example.com", nil); err != nil {
			return nil, err
		}
	}
	s.server = httptest.NewUnstartedServer(http.FileServer(http.Dir(s.folder)))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	s.server.StartTLS()
	s.url = strings.Replace(s.server.URL, "127.0.0.1", "localhost", 1)
	return s, nil
}

// Prepare implements Signer.
func (*simpleSigner) Prepare(context.Context, string) error { return nil }

// Stop implements Signer.
func (s *simpleSigner) Stop() error {
	s.server.Close()
	return nil
}

// Sign adds a signature to those on an image.
func (s *simpleSigner) Sign(_ context.Context, role string, on Image) error {
	var message bytes.Buffer
	w, err := openpgp.Sign(&message, []*openpgp.Entity{s.keys[role]}, nil, nil)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, `{"critical":{"type":"atomic container signature","image":`+
		`{"docker-manifest-digest":%q},"identity":{"docker-reference":%q}},"optional":{}}`, on.Digest,
		on.Tagged()); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, path, _ := strings.Cut(on.Repository, "/")
	folder := filepath.Join(s.folder, path+"@"+strings.Replace(on.Digest, ":", "=", 1))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	others, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, fmt.Sprintf("signature-%d", len(others)+1)), message.Bytes(), 0o600)
}

// Spec implements Signer.
func (s *simpleSigner) Spec() (v1alpha1.TrustRootSpec, error) {
	spec := &v1alpha1.SimpleSigningSpec{
		Lookaside: s.url, LookasideCABundle: v1alpha1.RegistryCABundle(s.ca.PEM),
	}
	for _, role := range []string{CI, QA} {
		var public bytes.Buffer
		w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
		if err != nil {
			return v1alpha1.TrustRootSpec{}, err
		}
		if err := s.keys[role].Serialize(w); err != nil {
			return v1alpha1.TrustRootSpec{}, err
		}
		if err := w.Close(); err != nil {
			return v1alpha1.TrustRootSpec{}, err
		}
		spec.Roles = append(spec.Roles, v1alpha1.SimpleSigningRole{
			Name: v1alpha1.RoleName(role), Keys: []v1alpha1.OpenPGPKey{v1alpha1.OpenPGPKey(public.String())},
		})
	}
	return v1alpha1.TrustRootSpec{SimpleSigning: spec, Registries: registriesOf(s.registry)}, nil
}
