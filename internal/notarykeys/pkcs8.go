package notarykeys

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
)

// parsePrivate reads an unencrypted private key in PKCS #8.
func parsePrivate(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("not a private key in PKCS #8")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T cannot sign", key)
	}
	return signer, nil
}
