# Every target but test-node needs Go 1.26, git and a C compiler, and nothing else. Tools are pinned
# in hack/tools/go.mod, the real servers that the tests and the demo run against in hack/kube/go.mod
# and hack/notary/go.mod, the CRDs of policy reports that they install in hack/reports/go.mod, the
# query engine that the alerts are tested with in hack/prometheus/go.mod, the image builder in
# hack/release/go.mod.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TOOL := go tool -modfile=hack/tools/go.mod
GENERATED := api/v1alpha1/zz_generated.deepcopy.go config/crd config/rbac/role.yaml docs/api.md bundle bundle.Dockerfile
BENCH := bin/bench.txt
COUNT := 1
PLATFORMS := linux/amd64,linux/arm64
DIST := dist
say = @echo '==>'

.PHONY: help
help: ## Print what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show the gate at work on real servers, started on this machine; KEEP=1 leaves them up
	$(say) "compiling the demonstration; then it builds the servers where they are not there yet (some minutes the first time)"
	@KEEP="$(KEEP)" go run ./hack/demo

.PHONY: servers
servers: ## Build the real servers that tests and demo run against (some minutes the first time, kept in your cache)
	$(say) "servers: a few minutes the first time, then kept in your cache folder"
	@go run ./hack/servers

.PHONY: test
test: servers ## Run the whole suite with the race detector, against the real servers
	$(say) "go test: every package, with the race detector"
	@# verify runs go vet. The tests that run side by side mostly wait: for intervals, leases and timeouts.
	@go test -race -vet=off -p 2 -parallel 4 -timeout 30m ./...
	$(say) "alerts and dashboard, with the query engine of Prometheus (a module of its own; a minute the first time)"
	@go -C hack/prometheus test -count=1 . # the cache does not see what lies outside of the module

.PHONY: test-node
test-node: ## Prove the installation on a real one-node cluster, made on this machine: Linux and root (three to five minutes); VERSION=v1.2.3 IMAGE=reference@digest for a release
	$(say) "servers: a few minutes the first time, then kept in your cache folder"
	@go run ./hack/servers kube-controller-manager kube-proxy kube-scheduler kubelet
	$(say) "a node of its own, with what Debian calls containerd, runc, containernetworking-plugins, iptables and conntrack; it leaves nothing behind"
	@VERSION="$(VERSION)" IMAGE="$(IMAGE)" go test -tags node -count=1 -v -timeout 40m ./test/node

.PHONY: bench
bench: servers ## Measure the figures of docs/performance.md, and print them as one table (five to ten minutes)
	@mkdir -p bin && rm -f $(BENCH)
	$(say) "the parts: verifying, deciding, reading"
	@go test -run '^$$' -bench . -benchtime 0.2s -benchmem ./internal/... | grep --line-buffered -v 'no test files' | tee -a $(BENCH)
	$(say) "the decision, the handlers over HTTPS, first sight of a repository, 500 Pods at once, a key revoked: two to three minutes"
	@go test -run '^$$' -bench 'Decide|Handler|FirstSight|Herd|Revocation' -count $(COUNT) -timeout 30m ./test/bench | tee -a $(BENCH)
	$(say) "1,000 repositories: three minutes"
	@go test -run '^$$' -bench ThousandRepositories -benchtime 1x -count $(COUNT) -timeout 60m ./test/bench | tee -a $(BENCH)
	$(say) "10,000 Pods on a real API server: two to four minutes; then five edits of the policy that covers them"
	@go test -run '^$$' -bench . -benchtime 5x -timeout 20m ./test/e2e | tee -a $(BENCH)
	$(say) "what benchstat reads is in $(BENCH)"
	@go run ./hack/bench $(BENCH)

.PHONY: build
build: ## Build the manager into bin/
	$(say) "building bin/countersign"
	@CGO_ENABLED=0 go build -trimpath -o bin/countersign .

.PHONY: image
image: ## Build and push the image, with SBOMs; IMAGE=repository, and PLATFORMS=linux/amd64,... and VERSION=v1.2.3 where wanted
	$(say) "the image builder (some minutes the first time)"
	@go -C hack/release run . image -dist "$(abspath $(DIST))" -image "$(IMAGE)" -platforms "$(PLATFORMS)" -version "$(VERSION)"

.PHONY: test-image
test-image: ## Build the image and look at all that is in it; build it again and want the same (some minutes the first time)
	$(say) "images for both platforms, then the same commit from two folders"
	@go -C hack/release test -count=1 -timeout 30m . # the cache does not see what lies outside of the module

.PHONY: release
release: export SOURCE_DATE_EPOCH = $(shell git -c safe.directory="$(CURDIR)" log -1 --format=%ct)
release: ## Build all of a release from a checkout of its tag, push the image; VERSION=v1.2.3 IMAGE=repository
	$(say) "is this a clean checkout of $(VERSION)?"
	@go -C hack/release run . check-tag -version "$(VERSION)"
	@rm -rf "$(DIST)"
	@$(MAKE) --no-print-directory image
	@cp config/crd/countersign.dev_*.yaml "$(DIST)/"
	@for part in install-yaml chart bundle; do \
		$(MAKE) --no-print-directory $$part IMAGE="$$(cat "$(DIST)/image.txt")" VERSION="$(VERSION:v%=%)"; done
	@rm -rf "$(DIST)/chart" # is in its archive
	@go -C hack/release run . finish -dist "$(abspath $(DIST))" -version "$(VERSION)"
	$(say) "$(DIST)/ holds the release, and its checksums:"
	@cd "$(DIST)" && sha256sum --check sha256sums.txt

.PHONY: sign
sign: ## Sign an image for a role; ROLE=ci IMAGE=repository@digest VERSION=v1.2.3, and NOTARY_... as docs/release.md says
	@go run ./hack/sign --role "$(ROLE)" --image "$(IMAGE)" --tag "$(VERSION)"

.PHONY: install-yaml
install-yaml: ## Write dist/install.yaml; IMAGE=reference, and COMPONENTS=prometheus,cert-manager,... where wanted
	$(say) "rendering config/ (kubectl is built first where it is not there yet)"
	@go run ./hack/manifests --image "$(IMAGE)" --components "$(COMPONENTS)" --out "$(DIST)/install.yaml"

.PHONY: chart
chart: ## Write the Helm chart into dist/; VERSION=0.1.0 IMAGE=reference, best by digest
	$(say) "making the chart from config/ (kubectl is built first where it is not there yet)"
	@go run ./hack/chart -out "$(DIST)" -version "$(VERSION)" -image "$(IMAGE)"

.PHONY: bundle
bundle: ## Write bundle/, which is committed; VERSION=0.1.0 IMAGE=reference@digest: dist/bundle and dist/catalog for OLM, REPLACES=version for an upgrade
	$(say) "rendering config/olm (kubectl is built first where it is not there yet), then checking what is made of it"
	@# What is committed is the same wherever and whenever it is made; what is released names the digest of its image.
	@if [ -z "$(IMAGE)$(VERSION)" ]; then go run ./hack/bundle --committed; exit; fi; \
		go run ./hack/bundle --out "$(DIST)" --version "$(VERSION)" --image "$(IMAGE)" --replaces "$(REPLACES)" --bundle-image "$(BUNDLE_IMAGE)" --created "$${CREATED:-$$(git -c safe.directory="$(CURDIR)" log -1 --format=%cI)}"

.PHONY: generate
generate: ## Regenerate deep copies, CRDs, RBAC and docs/api.md from the Go sources
	$(say) "controller-gen and crd-ref-docs (built first where they are not there yet)"
	@$(TOOL) controller-gen object crd:crdVersions=v1 paths=./api/... output:crd:dir=config/crd
	@$(TOOL) controller-gen rbac:roleName=countersign-manager paths=./... output:rbac:dir=config/rbac
	@go tool -modfile=hack/apidocs/go.mod crd-ref-docs --log-level=ERROR --renderer=markdown --source-path=api/v1alpha1 \
		--config=hack/apidocs/config.yaml --templates-dir=hack/apidocs/templates --output-path=docs/api.md

.PHONY: lint
lint: ## Lint, the layer rules included
	$(say) "golangci-lint (the first time it is built, which takes a minute or two)"
	@$(TOOL) golangci-lint run # with the tag node, which is in its configuration
	@for module in hack/prometheus hack/release; do (cd $$module && go tool -modfile=../tools/go.mod golangci-lint run) || exit; done

.PHONY: verify
verify: generate ## Regenerate and want a clean tree, the committed bundle included; check go.mod, formatting, vet and lint
	@$(MAKE) --no-print-directory bundle IMAGE= VERSION=
	$(say) "generated files are committed"
	@changed="$$(git status --porcelain -- $(GENERATED))"; if [ -n "$$changed" ]; then \
		echo "generated files differ from what is committed; commit these:"; echo "$$changed"; \
		git --no-pager diff -- $(GENERATED); exit 1; fi
	$(say) "go.mod and go.sum are tidy"
	@go mod tidy -diff
	@go -C hack/prometheus mod tidy -diff
	@go -C hack/release mod tidy -diff
	@go -C hack/apidocs mod tidy -diff
	$(say) "gofmt"
	@unformatted="$$(git ls-files '*.go' | xargs gofmt -l)"; if [ -n "$$unformatted" ]; then \
		echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	$(say) "lines of at most 100 columns in comments and pages, 120 in code"
	@git ls-files '*.go' '*.md' '*.yaml' '*.tpl' Makefile .ci/run .golangci.yml | grep -v '^bundle/\|^config/crd/' | \
		xargs go run ./hack/columns
	$(say) "go vet"
	@go vet ./...
	@go vet -tags node ./test/node
	@go -C hack/prometheus vet ./...
	@go -C hack/release vet ./...
	@$(MAKE) --no-print-directory lint
