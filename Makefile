# Every target except test-node and test-clients needs only Go 1.26, git and a C compiler. Separate
# modules pin the rest: hack/tools/go.mod the tools, hack/kube/go.mod and hack/notary/go.mod the
# servers of the tests and the demo, hack/reports/go.mod the CRDs of policy reports,
# hack/prometheus/go.mod the query engine that tests the alerts, and hack/release/go.mod the image
# builder.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TOOL := go tool -modfile=hack/tools/go.mod
GENERATED := api/v1alpha1/zz_generated.deepcopy.go config/crd config/rbac/role.yaml docs/api.md bundle bundle.Dockerfile
BENCH := bin/bench.txt
COUNT := 1
PLATFORMS := linux/amd64,linux/arm64
DIST := dist
PROGRAM := countersign
say = @echo '==>'

.PHONY: help
help: ## Print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: minute
minute: ## Verify a signed image and one that lacks a signature, without a cluster; KEEP=1 keeps the registry running
	@go build -o bin/kubectl-countersign ./cmd/kubectl-countersign
	@KEEP="$(KEEP)" go run ./hack/minute

.PHONY: demo
demo: ## Show the gate on real servers, started on this machine; KEEP=1 keeps them running
	$(say) "compiling the demo, then building its servers (some minutes the first time, then cached)"
	@KEEP="$(KEEP)" go run ./hack/demo

.PHONY: demo-sigstore
demo-sigstore: ## Show cosign's keys, an identity, an attestation, and a restart without the registry; KEEP=1 keeps the servers running
	$(say) "compiling the demo, then building its servers (some minutes the first time, then cached)"
	@KEEP="$(KEEP)" go run ./hack/demo -story sigstore

.PHONY: demo-formats
demo-formats: ## Show one image in all five signature formats; KEEP=1 keeps the servers running
	$(say) "compiling the demo, then building its servers (some minutes the first time, then cached)"
	@KEEP="$(KEEP)" go run ./hack/demo -story formats

.PHONY: demo-migration
demo-migration: ## Show a repository that moves from Docker Content Trust to cosign and back, under load; KEEP=1 keeps the servers running
	$(say) "compiling the demo, then building its servers (some minutes the first time, then cached)"
	@KEEP="$(KEEP)" go run ./hack/demo -story migration

.PHONY: servers
servers: ## Build the real servers of the tests and the demo (some minutes the first time, then cached)
	$(say) "building the servers (some minutes the first time, then cached)"
	@go run ./hack/servers

.PHONY: test test-go test-matrix test-alerts
test: test-go test-matrix test-alerts ## Run all tests with the race detector, against the real servers

test-go: servers
	$(say) "go test: all packages but test/formats, with the race detector"
	@# No -vet: make verify runs go vet. -parallel 4: tests mostly wait for intervals, leases and timeouts.
	@# go test begins with the packages that are named first: the two that take longest.
	@go test -race -vet=off -p 2 -parallel 4 -timeout 30m ./test/e2e ./test/install \
		$$(go list ./... | grep -v '/test/formats$$')

test-matrix: servers
	$(say) "go test: test/formats, with the race detector, and roles in every pair of formats as a table"
	@go test -race -vet=off -timeout 30m -v ./test/formats

test-alerts:
	$(say) "alerts and dashboard, with the query engine of Prometheus (a separate module; a minute the first time)"
	@go -C hack/prometheus test -count=1 . # go test caches, and does not notice changes outside the module

.PHONY: test-node
test-node: ## Test the installation on a real one-node cluster on this machine, as root on Linux (three to five minutes); VERSION=v1.2.3 IMAGE=reference@digest test a release
	$(say) "building the servers (some minutes the first time, then cached)"
	@go run ./hack/servers kube-controller-manager kube-proxy kube-scheduler kubelet
	$(say) "starting a node; it needs the Debian packages containerd, runc, containernetworking-plugins, iptables and conntrack, and is removed afterwards"
	@VERSION="$(VERSION)" IMAGE="$(IMAGE)" go test -tags node -count=1 -v -timeout 40m ./test/node

.PHONY: test-clients
test-clients: ## Test simple signing with the real gpg and skopeo, which it installs with apt-get where they are missing
	$(say) "gpg and skopeo: Debian's packages gnupg and skopeo; then a registry (a minute the first time, then cached)"
	@go test -tags clients -count=1 -timeout 10m ./test/clients

.PHONY: bench
bench: servers ## Measure the figures of docs/performance.md, and print them as a table (about fifteen minutes)
	@mkdir -p bin && rm -f $(BENCH)
	$(say) "single parts: verification, decision, parsing"
	@go test -run '^$$' -bench . -benchtime 0.2s -benchmem ./internal/... | grep --line-buffered -v 'no test files' | tee -a $(BENCH)
	$(say) "decision, handlers over HTTPS, first fetch of a repository or tag, 500 Pods at once, revocation of a key: three minutes"
	@go test -run '^$$' -bench 'Decide|Handler|FirstSight|Herd|Flood|Revocation' -count $(COUNT) -timeout 30m ./test/bench | tee -a $(BENCH)
	$(say) "image registries, 1,000 known tags on one, every format, 10,000 digests in four formats: six minutes"
	@go test -run '^$$' -bench 'Resolve|KnownTags|Format|TenThousandDigests' -benchtime 1x -count $(COUNT) -timeout 30m ./test/bench | tee -a $(BENCH)
	$(say) "1,000 and 10,000 repositories: four minutes"
	@go test -run '^$$' -bench ThousandRepositories -benchtime 1x -count $(COUNT) -timeout 60m ./test/bench | tee -a $(BENCH)
	$(say) "10,000 Pods on a real API server, then five edits of the policy that covers them: two to four minutes"
	@go test -run '^$$' -bench . -benchtime 5x -timeout 20m ./test/e2e | tee -a $(BENCH)
	$(say) "$(BENCH) has the results in the format of benchstat"
	@go run ./hack/bench $(BENCH)

.PHONY: build
build: ## Build the manager and the command line into bin/
	$(say) "building bin/countersign"
	@CGO_ENABLED=0 go build -trimpath -o bin/countersign .
	@CGO_ENABLED=0 go build -trimpath -o bin/kubectl-countersign ./cmd/kubectl-countersign

.PHONY: image
image: ## Build and push an image, with SBOMs; IMAGE=repository, optionally PROGRAM=kubectl-countersign, PLATFORMS=linux/amd64,... and VERSION=v1.2.3
	$(say) "building the image builder (some minutes the first time)"
	@go -C hack/release run . image -program "$(PROGRAM)" -dist "$(abspath $(DIST))" -image "$(IMAGE)" -platforms "$(PLATFORMS)" -version "$(VERSION)"

.PHONY: archives
archives: ## Write an archive of the command line for each platform into dist/, and the manifest for krew; VERSION=v1.2.3
	@go -C hack/release run . archives -dist "$(abspath $(DIST))" -version "$(VERSION)"

.PHONY: test-image
test-image: ## Build the image, check its contents, and check that a second build is identical (some minutes the first time)
	$(say) "building images for both platforms, then one commit from two folders"
	@go -C hack/release test -count=1 -timeout 30m . # go test caches, and does not notice changes outside the module

.PHONY: release
release: export SOURCE_DATE_EPOCH = $(shell git -c safe.directory="$(CURDIR)" log -1 --format=%ct)
release: ## Build all files of a release from a checkout of its tag, and push the image; VERSION=v1.2.3 IMAGE=repository
	$(say) "checking that this is a clean checkout of $(VERSION)"
	@go -C hack/release run . check-tag -version "$(VERSION)"
	@rm -rf "$(DIST)"
	@$(MAKE) --no-print-directory image
	@$(MAKE) --no-print-directory image PROGRAM=kubectl-countersign IMAGE="$(IMAGE)-kubectl"
	@$(MAKE) --no-print-directory archives
	@cp config/crd/countersign.dev_*.yaml "$(DIST)/"
	@for part in install-yaml chart bundle; do \
		$(MAKE) --no-print-directory $$part IMAGE="$$(cat "$(DIST)/image.txt")" VERSION="$(VERSION:v%=%)"; done
	@rm -rf "$(DIST)/chart" # the archive has it
	@go -C hack/release run . finish -dist "$(abspath $(DIST))" -version "$(VERSION)"
	$(say) "$(DIST)/ has the release; verifying its checksums:"
	@cd "$(DIST)" && sha256sum --check sha256sums.txt

.PHONY: sign
sign: ## Sign an image for a role; ROLE=ci IMAGE=repository@digest VERSION=v1.2.3, and NOTARY_... (see docs/release.md)
	@go run ./hack/sign --role "$(ROLE)" --image "$(IMAGE)" --tag "$(VERSION)"

.PHONY: install-yaml
install-yaml: ## Write dist/install.yaml; IMAGE=reference, optionally COMPONENTS=prometheus,cert-manager,...
	$(say) "rendering config/ (the first time, this builds kubectl)"
	@go run ./hack/manifests --image "$(IMAGE)" --components "$(COMPONENTS)" --out "$(DIST)/install.yaml"

.PHONY: chart
chart: ## Write the Helm chart into dist/; VERSION=0.1.0 IMAGE=reference, preferably by digest
	$(say) "making the chart from config/ (the first time, this builds kubectl)"
	@go run ./hack/chart -out "$(DIST)" -version "$(VERSION)" -image "$(IMAGE)"

.PHONY: bundle
bundle: ## Write the committed bundle/; with VERSION=0.1.0 IMAGE=reference@digest write dist/bundle and dist/catalog for OLM, REPLACES=version for an upgrade
	$(say) "making the bundle from config/olm, and checking it (the first time, this builds kubectl)"
	@# The committed bundle is reproducible anywhere. A released bundle names its image by digest.
	@if [ -z "$(IMAGE)$(VERSION)" ]; then go run ./hack/bundle --committed; exit; fi; \
		go run ./hack/bundle --out "$(DIST)" --version "$(VERSION)" --image "$(IMAGE)" --replaces "$(REPLACES)" --bundle-image "$(BUNDLE_IMAGE)" --created "$${CREATED:-$$(git -c safe.directory="$(CURDIR)" log -1 --format=%cI)}"

.PHONY: generate
generate: ## Regenerate deep copies, CRDs, RBAC and docs/api.md from the Go sources
	$(say) "running controller-gen and crd-ref-docs (the first time, this builds them)"
	@$(TOOL) controller-gen object crd:crdVersions=v1 paths=./api/... output:crd:dir=config/crd
	@$(TOOL) controller-gen rbac:roleName=countersign-manager paths=./... output:rbac:dir=config/rbac
	@go tool -modfile=hack/apidocs/go.mod crd-ref-docs --log-level=ERROR --renderer=markdown --source-path=api/v1alpha1 \
		--config=hack/apidocs/config.yaml --templates-dir=hack/apidocs/templates --output-path=docs/api.md

.PHONY: lint
lint: ## Run golangci-lint, with the layer rules
	$(say) "running golangci-lint (the first time, this builds it, which takes a minute or two)"
	@$(TOOL) golangci-lint run # its configuration sets the tags node and clients
	@for module in hack/prometheus hack/release; do (cd $$module && go tool -modfile=../tools/go.mod golangci-lint run) || exit; done

.PHONY: verify verify-generated verify-source
verify: verify-generated ## Check that generated files and bundle/ are committed; check go.mod, formatting, line lengths, vet and lint
	@$(MAKE) --no-print-directory verify-source

verify-generated: generate
	@$(MAKE) --no-print-directory bundle IMAGE= VERSION=
	$(say) "checking that generated files are committed"
	@changed="$$(git status --porcelain -- $(GENERATED))"; if [ -n "$$changed" ]; then \
		echo "generated files differ from the committed ones; commit these:"; echo "$$changed"; \
		git --no-pager diff -- $(GENERATED); exit 1; fi

verify-source: # changes no file
	$(say) "checking that go.mod and go.sum are tidy"
	@go mod tidy -diff
	@go -C hack/prometheus mod tidy -diff
	@go -C hack/release mod tidy -diff
	@go -C hack/apidocs mod tidy -diff
	$(say) "gofmt"
	@unformatted="$$(git ls-files '*.go' | xargs gofmt -l)"; if [ -n "$$unformatted" ]; then \
		echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(say) "checking lines: at most 100 columns in comments and pages, 120 in code"
	@git ls-files '*.go' '*.md' '*.yaml' '*.tpl' Makefile .ci/run .golangci.yml | grep -v '^bundle/\|^config/crd/' | \
		xargs go run ./hack/columns
	$(say) "go vet"
	@go vet ./...
	@go vet -tags node ./test/node
	@go vet -tags clients ./test/clients
	@go -C hack/prometheus vet ./...
	@go -C hack/release vet ./...
	@$(MAKE) --no-print-directory lint
