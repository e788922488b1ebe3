package notarykeys

import "errors"

// ErrPassphrase says that no passphrase decrypts a key.
var ErrPassphrase = errors.New("wrong passphrase")

// Passphrases gives passphrases of keys: from the variables of Docker and of the notary client, or
// from a terminal.
type Passphrases struct {
	// Getenv reads an environment variable, as os.Getenv does.
	Getenv func(name string) string
	// Terminal reads a passphrase without echo. Nil: there is no terminal.
	Terminal Terminal
}
