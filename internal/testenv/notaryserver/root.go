package notaryserver

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// RootPin holds the values that a verifier can pin the root of a repository to.
type RootPin struct {
	// KeyID is the canonical key ID: the ID of the bare public key, as "docker trust inspect"
	// prints it.
	KeyID string
	// PublicKeyPEM is the public key.
	PublicKeyPEM []byte
	// CertificatePEM is the certificate in the root metadata.
	CertificatePEM []byte
}

// rootMetadata holds the fields of root.json that this package reads.
type rootMetadata struct {
	Signed struct {
		Keys map[string]struct {
			KeyVal struct {
				Public []byte `json:"public"`
			} `json:"keyval"`
		} `json:"keys"`
		Roles map[string]struct {
			KeyIDs []string `json:"keyids"`
		} `json:"roles"`
	} `json:"signed"`
}

func (c *Client) root(gun string) (root rootMetadata, err error) {
	text, err := os.ReadFile(filepath.Join(c.Dir, "tuf", filepath.FromSlash(gun), "metadata", "root.json"))
	if err == nil {
		err = json.Unmarshal(text, &root)
	}
	if err != nil {
		return root, fmt.Errorf("reading the root of %s: %w", gun, err)
	}
	return root, nil
}

// TopKeys returns the canonical key IDs of targets, snapshot and timestamp, by role. It reads the
// root metadata in the trust directory, and fails if a role has more than one key.
func (c *Client) TopKeys(gun string) (map[string]string, error) {
	root, err := c.root(gun)
	if err != nil {
		return nil, err
	}
	keys := map[string]string{}
	for _, role := range []string{"targets", "snapshot", "timestamp"} {
		ids := root.Signed.Roles[role].KeyIDs
		if len(ids) != 1 {
			return nil, fmt.Errorf("the root of %s has %d keys for %s, expected one", gun, len(ids), role)
		}
		keys[role] = ids[0] // the ID of a bare key is the canonical ID
	}
	return keys, nil
}

// Root returns the root key of a repository. It reads the root metadata in the trust directory.
func (c *Client) Root(gun string) (RootPin, error) {
	root, err := c.root(gun)
	if err != nil {
		return RootPin{}, err
	}
	ids := root.Signed.Roles["root"].KeyIDs
	if len(ids) != 1 {
		return RootPin{}, fmt.Errorf("the root of %s has %d root keys, expected one", gun, len(ids))
	}
	certificate := root.Signed.Keys[ids[0]].KeyVal.Public
	public, err := certifiedKey(certificate)
	if err != nil {
		return RootPin{}, fmt.Errorf("reading the root certificate of %s: %w", gun, err)
	}
	return RootPin{
		KeyID:          canonicalKeyID(public),
		PublicKeyPEM:   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public.der}),
		CertificatePEM: certificate,
	}, nil
}

// canonicalKeyID returns the hash of the canonical JSON that Notary encodes a bare public key as.
func canonicalKeyID(key publicKey) string {
	text := fmt.Sprintf(`{"keytype":%q,"keyval":{"private":null,"public":%q}}`, key.kind,
		base64.StdEncoding.EncodeToString(key.raw))
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
