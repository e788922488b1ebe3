// Package crd embeds the CRDs, so that the command line can validate objects without a cluster.
package crd

import "embed"

// Files are the CRDs, one file a kind.
//
//go:embed countersign.dev_*.yaml
var Files embed.FS
