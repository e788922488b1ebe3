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

// Options are what all formats share.
type Options struct {
	// Hosts limit the requests to each host.
	Hosts *registry.Hosts
	// Budget limits the memory of decoding.
	Budget *budget.Budget
	// Keychain has the credentials for registries that refuse those of a trust root. Nil: there are
	// none.
	Keychain registry.Keychain
	// NotaryAccount returns the credentials for a Notary server whose TrustRoot names none. Nil:
	// such a server gets none.
	NotaryAccount notary.Account
}

// All returns every format. The options limit all of them together.
func All(o Options) []trust.Format {
	return []trust.Format{
		notary.Format{Hosts: o.Hosts, Budget: o.Budget, Account: o.NotaryAccount},
		sigstore.Format{Hosts: o.Hosts, Budget: o.Budget, Keychain: o.Keychain},
		&notation.Format{Hosts: o.Hosts, Budget: o.Budget, Keychain: o.Keychain},
		simplesigning.Format{Hosts: o.Hosts, Budget: o.Budget, Keychain: o.Keychain},
		tuf.Format{Hosts: o.Hosts, Budget: o.Budget},
	}
}
