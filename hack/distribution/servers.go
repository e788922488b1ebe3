//go:build servers

// Package distribution pins the registry that the tests run against.
package distribution

import (
	_ "github.com/distribution/distribution/v3/cmd/registry"
)
