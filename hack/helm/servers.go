//go:build servers

// Package helm pins the Helm client that packages the chart, and that its tests install it with.
package helm

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
