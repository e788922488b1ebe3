//go:build servers

// Package notation pins the client that signs images in the tests.
package notation

import (
	_ "github.com/notaryproject/notation/cmd/notation"
)
