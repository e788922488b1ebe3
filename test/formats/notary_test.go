package formats

import (
	"context"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/testenv/notaryserver"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// notarySigner signs with the real notary client, on a real server.
type notarySigner struct {
	server *notaryserver.Server
	client *notaryserver.Client
	guns   []string
}

func newNotary(t *testing.T) *notarySigner {
	t.Helper()
	server := notaryserver.Run(t, notaryserver.Options{})
	return &notarySigner{server: server, client: notaryserver.RunClient(t, server)}
}

func (*notarySigner) format() trust.Format { return notary.Format{} }

// sign signs in the delegation of the role, and creates the repository first where it is new.
func (n *notarySigner) sign(ctx context.Context, role string, on image) error {
	gun := on.repository
	if len(n.guns) == 0 || n.guns[len(n.guns)-1] != gun {
		if _, err := n.client.CreateRepository(ctx, gun, "ci", "qa"); err != nil {
			return err
		}
		n.guns = append(n.guns, gun)
	}
	return n.client.AddHash(ctx, gun, on.tag, on.size, strings.TrimPrefix(on.digest, "sha256:"), "targets/"+role)
}

func (n *notarySigner) spec() (v1alpha1.TrustRootSpec, error) {
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

func (*notarySigner) broken(spec *v1alpha1.TrustRootSpec) { spec.Notary.CABundle = "" }
