//go:build servers

// Package helm pins the Helm client with which the tests install the chart.
package helm

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
