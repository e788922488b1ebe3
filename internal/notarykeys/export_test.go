package notarykeys

import (
	"encoding/pem"
	"testing"
)

// Kinds returns an unencrypted private key of each kind, by the name of its signer.
func Kinds(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for signer, encoding := range map[string]string{
		"p256": "PKCS 8, P-256", "p384": "SEC 1, P-384", "p521": "PKCS 8, P-521", "rsa": "PKCS 8, RSA",
		"ed25519": "PKCS 8, Ed25519",
	} {
		all[signer] = pem.EncodeToMemory(encodings(t)[encoding])
	}
	return all
}
