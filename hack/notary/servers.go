//go:build servers

// Package notary pins the Notary v1 server, signer and client of the tests and the demo.
package notary

import (
	_ "github.com/theupdateframework/notary/cmd/notary"
	_ "github.com/theupdateframework/notary/cmd/notary-server"
	_ "github.com/theupdateframework/notary/cmd/notary-signer"
)
