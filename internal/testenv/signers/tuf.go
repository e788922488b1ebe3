package signers

import (
	"context"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/tufserver"
)

// tufSigner signs in one TUF repository for all images, which go-tuf's metadata API makes.
type tufSigner struct {
	server     *tufserver.Server
	repository *tufserver.Repository
}

func startTUF() (_ *tufSigner, err error) {
	s := &tufSigner{}
	if s.server, err = tufserver.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.server.Stop()
		}
	}()
	expires := time.Now().AddDate(0, 1, 0).UTC().Truncate(time.Second)
	if s.repository, err = s.server.Create("/metadata", expires, true); err != nil {
		return nil, err
	}
	for _, role := range []string{CI, QA} {
		if _, err := s.repository.Delegate(metadata.TARGETS, role, 1, "*/*/*"); err != nil {
			return nil, err
		}
	}
	return s, s.repository.Publish(metadata.TARGETS, CI, QA)
}

// Prepare implements Signer.
func (*tufSigner) Prepare(context.Context, string) error { return nil }

// Stop implements Signer.
func (s *tufSigner) Stop() error {
	s.server.Stop()
	return nil
}

// Sign implements Signer.
func (s *tufSigner) Sign(_ context.Context, role string, on Image) error {
	if err := s.repository.Sign(role, on.Tagged(), on.Digest, on.Size); err != nil {
		return err
	}
	return s.repository.Publish(role)
}

// Spec implements Signer.
func (s *tufSigner) Spec() (v1alpha1.TrustRootSpec, error) {
	return v1alpha1.TrustRootSpec{TUF: &v1alpha1.TUFSpec{
		Server: s.server.URL + "/metadata", CABundle: v1alpha1.PEMBundle(s.server.CA.PEM),
		Root: s.repository.RootJSON(1),
	}}, nil
}
