// Package formats lists the formats that a TrustRoot can have. It is the only package that imports
// them: the manager and the command line use the same list.
package formats

import (
	"github.com/countersign-dev/countersign/internal/budget"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
	"github.com/countersign-dev/countersign/internal/trust/notation"
	"github.com/countersign-dev/countersign/internal/trust/sigstore"
	"github.com/countersign-dev/countersign/internal/trust/simplesigning"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
)

// All returns every format. The hosts and the budget limit all of them together. The keychain has
// the credentials for registries that refuse those of a trust root.
func All(hosts *registry.Hosts, decoding *budget.Budget, keychain registry.Keychain) []trust.Format {
	return []trust.Format{
		notary.Format{Hosts: hosts, Budget: decoding},
		sigstore.Format{Hosts: hosts, Budget: decoding, Keychain: keychain},
		&notation.Format{Hosts: hosts, Budget: decoding, Keychain: keychain},
		simplesigning.Format{Hosts: hosts, Budget: decoding, Keychain: keychain},
		tuf.Format{Hosts: hosts, Budget: decoding},
	}
}
