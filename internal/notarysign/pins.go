package notarysign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/notary"
)

// maxRoot bounds a root.json that is shown, in bytes.
const maxRoot = 512 << 10

// Pins are the root keys that a repository may have. At least one is required.
type Pins struct {
	// KeyIDs are canonical key IDs.
	KeyIDs []string
	// Keys are public keys or certificates.
	Keys []PEM
}

// PEM is a public key or certificate in PEM, with its origin for errors.
type PEM = notary.PEM

// Empty reports whether nothing is pinned.
func (p Pins) Empty() bool { return len(p.KeyIDs) == 0 && len(p.Keys) == 0 }

// RootKey is a key of a root that the server shows.
type RootKey struct {
	// ID is the canonical key ID, which "docker trust inspect" prints.
	ID string `json:"id"`
	// CommonName is the name in the key's certificate, and NotAfter the end of its validity.
	CommonName string    `json:"commonName,omitempty"`
	NotAfter   time.Time `json:"notAfter,omitzero"`
}

// Shown is the root that a server shows of a repository. Nothing vouches for it.
type Shown struct {
	Repository string    `json:"repository"`
	Version    int64     `json:"version"`
	Expires    time.Time `json:"expires"`
	Keys       []RootKey `json:"keys"`
}

// Show fetches the root of a repository, for a person who compares its key IDs with those that the
// publisher has told them. It verifies that the repository is consistent with that root. That
// proves nothing about the root.
func Show(ctx context.Context, conn Connection, repository string) (*Shown, error) {
	raw, err := conn.Server.Get(ctx, repository, folder(repository)+RoleRoot+".json", maxRoot)
	if errors.Is(err, trust.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", repository, ErrNoRepository)
	}
	if err != nil {
		return nil, err
	}
	var root rootFile
	if _, err := decode(raw, &root); err != nil || root.Roles[RoleRoot] == nil {
		return nil, fmt.Errorf("%s: the server's root.json is not readable; is it a Notary server?", repository)
	}
	s := &Shown{Repository: repository, Version: root.Version, Expires: root.Expires}
	for _, id := range slices.Sorted(slices.Values(root.Roles[RoleRoot].KeyIDs)) {
		k, ok := root.Keys[id]
		if !ok {
			continue
		}
		public, cert, err := k.read()
		if err != nil {
			return nil, fmt.Errorf("%s: a root key of the server is not readable: %w", repository, err)
		}
		key := RootKey{ID: public.ID()}
		if cert != nil {
			key.CommonName, key.NotAfter = cert.Subject.CommonName, cert.NotAfter.UTC()
		}
		s.Keys = append(s.Keys, key)
	}
	conn.Seen = nil // what nothing vouches for is not remembered
	r, err := Open(ctx, conn, repository, Pins{KeyIDs: s.KeyIDs()})
	if err != nil {
		return nil, err
	}
	r.Close()
	return s, nil
}

// KeyIDs returns the canonical IDs of the root keys.
func (s *Shown) KeyIDs() []string {
	var ids []string
	for _, k := range s.Keys {
		ids = append(ids, k.ID)
	}
	return ids
}
