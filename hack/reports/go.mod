// The tests of reports install the CRDs of these modules. No code of them is compiled.
module github.com/countersign-dev/countersign/hack/reports

go 1.26.0

require (
	github.com/kyverno/kyverno v1.19.1
	github.com/openreports/reports-api v0.2.1
)
