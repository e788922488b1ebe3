//go:build servers

// Package cosign pins the client that signs images in the tests.
package cosign

import (
	_ "github.com/sigstore/cosign/v3/cmd/cosign"
)
