package signers

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
)

// notarySigner signs with the real notary client, on a real server.
type notarySigner struct {
	server *notaryserver.Server
	client *notaryserver.Client
	guns   []string
}

func startNotary(ctx context.Context, o Options) (*notarySigner, error) {
	server, err := notaryserver.Start(ctx, notaryserver.Options{Dir: o.Dir, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	client, err := server.NewClient()
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	client.Verbose = o.Verbose
	return &notarySigner{server: server, client: client}, nil
}

// Stop implements Signer.
func (n *notarySigner) Stop() error { return n.server.Stop() }

// Prepare creates the repository, with a delegation for each role.
func (n *notarySigner) Prepare(ctx context.Context, repository string) error {
	if slices.Contains(n.guns, repository) {
		return nil
	}
	if _, err := n.client.CreateRepository(ctx, repository, CI, QA); err != nil {
		return err
	}
	n.guns = append(n.guns, repository)
	return nil
}

// Sign signs in the delegation of the role.
func (n *notarySigner) Sign(ctx context.Context, role string, on Image) error {
	if err := n.Prepare(ctx, on.Repository); err != nil {
		return err
	}
	return n.client.AddHash(ctx, on.Repository, on.Tag, on.Size, strings.TrimPrefix(on.Digest, "sha256:"),
		"targets/"+role)
}

// Spec implements Signer.
func (n *notarySigner) Spec() (v1alpha1.TrustRootSpec, error) {
	spec := &v1alpha1.NotarySpec{Server: n.server.URL, CABundle: v1alpha1.PEMBundle(n.server.CA.PEM)}
	for _, gun := range n.guns {
		pin, err := n.client.Root(gun)
		if err != nil {
			return v1alpha1.TrustRootSpec{}, err
		}
		spec.Root.KeyIDs = append(spec.Root.KeyIDs, v1alpha1.KeyID(pin.KeyID))
	}
	return v1alpha1.TrustRootSpec{Notary: spec}, nil
}
