// The tests of the manifests install the CRDs of these modules. No code of them is compiled.
module github.com/countersign-dev/countersign/hack/neighbours

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
