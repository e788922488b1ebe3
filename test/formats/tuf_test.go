package formats

import (
	"context"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
)

// tufSigner signs in one TUF repository for all images, which go-tuf's metadata API makes.
type tufSigner struct {
	server     *tufserver.Server
	repository *tufserver.Repository
}

func newTUF(t *testing.T) *tufSigner {
	t.Helper()
	s := &tufSigner{server: tufserver.Run(t)}
	var err error
	if s.repository, err = s.server.Create("/metadata", start().AddDate(0, 1, 0).UTC().Truncate(time.Second),
		true); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"ci", "qa"} {
		if _, err := s.repository.Delegate(metadata.TARGETS, role, 1, "*/*/*"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.repository.Publish(metadata.TARGETS, "ci", "qa"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (*tufSigner) format() trust.Format { return tuf.Format{} }

func (s *tufSigner) sign(_ context.Context, role string, on image) error {
	if err := s.repository.Sign(role, on.tagged(), on.digest, on.size); err != nil {
		return err
	}
	return s.repository.Publish(role)
}

func (s *tufSigner) spec() (v1alpha1.TrustRootSpec, error) {
	return v1alpha1.TrustRootSpec{TUF: &v1alpha1.TUFSpec{
		Server: s.server.URL + "/metadata", CABundle: v1alpha1.PEMBundle(s.server.CA.PEM),
		Root: s.repository.RootJSON(1),
	}}, nil
}

func (*tufSigner) broken(spec *v1alpha1.TrustRootSpec) { spec.TUF.CABundle = "" }
