# compute-daemons: see `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The version comes from git, or from the VERSION file of a source archive.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || echo v0.0.0)
MODULE  := github.com/compute-daemons/compute-daemons
GO      ?= go
LDFLAGS := -s -w -X $(MODULE)/internal/version.Version=$(VERSION)
STATIC  := CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -tags grpcnotrace -ldflags "$(LDFLAGS)"
DAEMONS := clientmountd nnf-dm
BINARIES := $(DAEMONS) nnf-dmctl nnf-deploy

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: build-daemon devcluster ## build all binaries into bin/

.PHONY: build-daemon
build-daemon: $(BINARIES:%=bin/%) ## build the daemons and the tools into bin/, static, with the version from git

# Always run: go build itself decides what is out of date.
.PHONY: $(BINARIES:%=bin/%)
$(BINARIES:%=bin/%): bin/%: need-go
	@mkdir -p bin
	$(STATIC) -o $@ ./cmd/$*

# The test build of clientmountd can exit at failpoints and accepts the file system types that
# the fake mount helpers really mount. It is never installed.
.PHONY: build-test
build-test: need-go
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -tags failpoints -o bin/clientmountd-failpoints ./cmd/clientmountd

# The test build with seeded defects, which the chaos suite must find.
.PHONY: bin/clientmountd-chaosbug
bin/clientmountd-chaosbug: need-go
	@mkdir -p bin && CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -tags failpoints,chaosbug -o $@ ./cmd/clientmountd

# Fakes of the programs of a compute node. They log their calls and fail on request.
.PHONY: bin/faketools
bin/faketools: need-go
	@mkdir -p bin && CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -o $@ ./internal/e2e/faketools

.PHONY: devcluster
devcluster: need-go ## build bin/devcluster, a real Kubernetes API server in one process, and bin/kubectl (first build: 4–5 minutes)
	@internal/devcluster/build.sh

# The packages are built from the source archive, which includes the Go modules, so
# that building the source RPM gives the same packages.
ARCHES ?= amd64 arm64
.PHONY: rpm srpm repo sbom snapshot rpm-source
rpm: rpm-source ## build the packages into bin/rpm (ARCHES="amd64 arm64": architectures, as Go names them)
	packaging/rpm.sh bin/rpm bin/packager $(ARCHES)

srpm: need-rpm rpm-source ## build the source package into bin/rpm
	packaging/srpm.sh bin/rpm

rpm-source: need-go bin/packager
	VERSION=$(VERSION) packaging/source.sh bin/rpm bin/packager

repo: need-repo rpm ## create a dnf repository in bin/repo (REPO_URL=https://…: its public URL; GPG_KEY=…: key to sign it with)
	REPO_URL='$(REPO_URL)' GPG_KEY='$(GPG_KEY)' packaging/repo.sh bin/repo bin/rpm/*.rpm

# The packaging tools are pinned in their own module, not in go.mod of the daemons.
PACKAGING_TOOL := cd packaging/tools && GOWORK=off $(GO) build -buildvcs=false -trimpath -o ../../bin/
bin/packager: $(wildcard packaging/tools/packager/*.go) packaging/tools/go.mod packaging/tools/go.sum
	@mkdir -p bin
	$(PACKAGING_TOOL) ./packager
bin/cyclonedx-gomod: packaging/tools/go.mod packaging/tools/go.sum
	@mkdir -p bin
	$(PACKAGING_TOOL) github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

sbom: build-daemon bin/cyclonedx-gomod ## write the SBOM of each program (CycloneDX) into bin/sbom
	@mkdir -p bin/sbom
	$(foreach b,$(BINARIES),packaging/sbom.sh bin/$(b) bin/sbom/$(b).cdx.json $(VERSION);)

# goreleaser has hundreds of modules, so it has no go.sum here. The version and Go's
# checksum database pin it.
GORELEASER := github.com/goreleaser/goreleaser/v2@v2.15.4
bin/goreleaser:
	GOBIN=$(CURDIR)/bin GOFLAGS=-buildvcs=false $(GO) install $(GORELEASER)

snapshot: bin/goreleaser bin/cyclonedx-gomod rpm srpm ## build a complete release into dist/ (the first run takes minutes)
	VERSION=$(VERSION) TREE=$(CURDIR) bin/goreleaser check
	VERSION=$(VERSION) TREE=$(CURDIR) bin/goreleaser release --snapshot --clean

.PHONY: demo
demo: need-demo build-daemon build-test devcluster bin/faketools ## run the demo: mount a ClientMount, copy from it in a job, clean up (30 seconds)
	@$(GO) build -buildvcs=false -trimpath -o bin/demo ./internal/e2e/demo
	@bin/demo

.PHONY: test
test: need-test need-lint ## run check, then the suites with real mounts and a real API server (CRDS=DIR: run conformance on those CRDs)
	@$(MAKE) --no-print-directory -j 2 lint devcluster
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory build-daemon build-test
	@$(MAKE) --no-print-directory -j 2 --output-sync=target $(SUITES)

# Otherwise make exports variables of its command line to every program.
unexport CRDS

# The suites run two at a time, the longest first. The crash suite runs in its own
# directory, where go test shows its output. With CRDS, the conformance and offload suites
# run on those definitions; all other suites use the definitions of devcluster.
E2E    := crash conformance fleetsim apiserver offload dmapiserver chaos abuse demo
E2E    := $(filter $(patsubst internal/e2e/%/,%,$(wildcard internal/e2e/*/)),$(E2E))
SUITES := suite-crash $(if $(CRDS),suite-crds) $(patsubst %,suite-%,$(filter-out crash $(if $(CRDS),conformance offload),$(E2E))) suite-devcluster suite-others
MACHINES := machine/container machine/fleet machine/vm
suite-%:
	$(GO) test -buildvcs=false -count=1 -timeout 20m ./internal/e2e/$*
.PHONY: suite-crash suite-crds suite-chaos suite-devcluster suite-others
suite-crash:
	cd internal/e2e/crash && $(GO) test -buildvcs=false -count=1 -timeout 20m
# The worlds mostly wait, so they are played at the same time. CHAOS_MINUTES=4 also plays
# fresh seeds, which are printed.
suite-chaos:
	$(GO) test -buildvcs=false -count=1 -p 4 -timeout 20m ./internal/e2e/chaos/...
suite-devcluster:
	internal/devcluster/build.sh --test -count=1 -timeout 20m
suite-crds:
	@[ -d "$(CRDS)" ] || { echo "make: CRDS must be a directory with CustomResourceDefinitions" >&2; exit 1; }
	CRDS=$(CRDS) $(GO) test -buildvcs=false -count=1 -p 1 -timeout 20m $(patsubst %,./internal/e2e/%,$(filter conformance offload,$(E2E)))
suite-others:
	$(GO) test -buildvcs=false -count=1 -p 1 -timeout 20m $$($(GO) list ./internal/e2e/... | grep -vE '/e2e/(($(subst $(eval) ,|,$(E2E) $(MACHINES) manual packages))$$|chaos/)')

# The tests on whole machines: systemd in containers, then a virtual machine. All use
# one root file system, which is created once (about a minute), and the packages of
# this tree. The tests of the packages run first. Their first run compiles nfpm, and
# the daemons from the vendored modules, which takes minutes.
.PHONY: e2e e2e-packages e2e-machine e2e-rpm e2e-container e2e-fleet e2e-vm e2e-one-by-one
e2e: need-e2e build-daemon devcluster ## test the packages and the installed daemons: in a container, a fleet of containers, a virtual machine (15-25 minutes)
	@start=$$SECONDS; rm -f bin/e2e.times; \
	for stage in packages machine rpm; do $(MAKE) --no-print-directory timed-e2e-$$stage; done; \
	$(MAKE) --no-print-directory -j 2 --output-sync=target timed-e2e-fleet e2e-one-by-one; \
	cat bin/e2e.times >&2; echo "make: e2e took $$((SECONDS - start)) s" >&2
# The fleet tests mostly wait, and the emulator is bound by the CPU: running both
# concurrently takes little longer than one of them.
e2e-one-by-one:
	@$(MAKE) --no-print-directory timed-e2e-container
	@$(MAKE) --no-print-directory timed-e2e-vm
timed-%:
	@start=$$SECONDS; $(MAKE) --no-print-directory $* E2E_NEEDS=; echo "make: $* took $$((SECONDS - start)) s" >>bin/e2e.times
e2e-packages: need-packages bin/packager bin/cyclonedx-gomod ## test the packages: contents, both ways to build them, reproducibility, installation and removal, repository
	cd packaging/tools && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) test -buildvcs=false -count=1 ./...
	$(GO) test -buildvcs=false -count=1 -timeout 30m ./internal/e2e/packages
e2e-machine:
	@internal/e2e/machine/prepare.sh || [ $$? = 3 ] # 3: not possible on this machine; the tests report it
e2e-rpm: need-go # the test machines are amd64
	@$(MAKE) --no-print-directory rpm ARCHES=amd64
E2E_NEEDS := build-daemon bin/packager e2e-rpm
e2e-container e2e-fleet e2e-vm: e2e-%: $(E2E_NEEDS) ## test the installed daemons on one kind of machine
	cd internal/e2e/machine/$* && E2E_MACHINE=1 $(GO) test -buildvcs=false -count=1 -timeout 30m -v .

WORLD ?= mounts offload deploy
MINUTES ?= 10
.PHONY: chaos
chaos: need-test need-rpm devcluster build-daemon build-test bin/clientmountd-chaosbug ## random operations and faults against all programs, with checks that do not trust them (WORLD="mounts offload deploy" SEED=1 MINUTES=10)
	CHAOS_SEED=$(SEED) CHAOS_MINUTES=$(MINUTES) CHAOS_SHRINK_MINUTES=20 CHAOS_BUGS=1 $(GO) test -buildvcs=false -count=1 -timeout 0 -p 4 -v $(WORLD:%=./internal/e2e/chaos/%)

.PHONY: test-crds
test-crds: need-test devcluster build-daemon build-test suite-crds ## run the conformance and offload suites on the CRDs in CRDS=DIR

.PHONY: check
check: lint unit fuzz ## run lint, unit and fuzz

.PHONY: unit
unit: need-go ## run the unit tests, and the tests of all texts
	$(GO) test -buildvcs=false -timeout 30m ./internal/e2e/manual $$($(GO) list ./... | grep -v /internal/e2e)

FUZZTIME ?= 4s
.PHONY: fuzz
fuzz: need-go ## run every fuzz target for 4 s (FUZZTIME=30s: for 30 s; FUZZTIME=0: skip)
	@[ "$(FUZZTIME)" = 0 ] || internal/e2e/fuzz.sh $(FUZZTIME)

.PHONY: generate
generate: need-go ## update generated files: Go code of the .proto files, man pages, completion, message catalogue, docs/reference, etc/
	@internal/api/datamovement/generate.sh
	@$(GO) run -buildvcs=false ./packaging/generate

.PHONY: lint
lint: need-go need-lint ## run gofmt, go vet, staticcheck and shellcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); [ -z "$$bad" ] || { echo "make: run gofmt -w on: $$bad" >&2; exit 1; }
	$(GO) vet -buildvcs=false ./...
	$(GO) vet -buildvcs=false -tags failpoints ./internal/clientmount/...
	cd internal/e2e/fleetsim/reference && GOWORK=off $(GO) vet -buildvcs=false ./...
	cd internal/tools && $(GO) build -buildvcs=false -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...
	cd internal/e2e/fleetsim/reference && GOWORK=off ../../../../bin/staticcheck ./...
	shellcheck $$(git ls-files '*.sh' .ci/run 2>/dev/null || find . -name '*.sh')
	shellcheck --shell=bash $$(find packaging/completion -maxdepth 1 -type f) packaging/examples/nhc/*.nhc

.PHONY: bench
bench: need-test build-daemon devcluster bin/faketools ## run the benchmark and compare with the targets (BENCHFLAGS=--json, --check)
	@$(GO) build -buildvcs=false -trimpath -o bin/bench ./internal/e2e/bench
	@$(GO) build -buildvcs=false -trimpath -o bin/fleetsim ./internal/e2e/fleetsim
	@$(GO) test -buildvcs=false -trimpath -c -o bin/nnf-deploy-scale.test ./internal/cli/deploy
	@$(GO) test -buildvcs=false -trimpath -c -o bin/nnf-deploy-sessions.test ./cmd/nnf-deploy
	@bin/bench $(BENCHFLAGS)

LIVES ?= 10000
CREATES ?= 100000
IDLE ?= 30m
.PHONY: soak
soak: need-test build-daemon devcluster bin/faketools ## measure what changes in the daemons during long use (LIVES=10000 CREATES=100000 IDLE=30m, SOAKFLAGS=--json; 1-2 hours)
	@$(GO) build -buildvcs=false -trimpath -o bin/bench ./internal/e2e/bench
	@bin/bench --soak --lives=$(LIVES) --creates=$(CREATES) --idle=$(IDLE) $(SOAKFLAGS)

# The archives of internal/e2e/upgrade/testdata, which are made once for each release.
.PHONY: fixture-release
fixture-release: need-test devcluster
	RELEASE=$(REF) $(GO) test -buildvcs=false -count=1 -run '^TestMake$$' -v ./internal/e2e/upgrade

NODES ?= 1000
.PHONY: fleet
fleet: need-go devcluster bin/fleetsim-reference ## simulate compute nodes on one API server, and compare its load with that of a reference fleet (NODES=1000, FLEETFLAGS=--json)
	@$(GO) build -buildvcs=false -trimpath -ldflags "$(LDFLAGS)" -o bin/fleetsim ./internal/e2e/fleetsim
	@bin/fleetsim --reference --nodes $(NODES) $(FLEETFLAGS)

# The reference fleet is a module of its own, because it uses the version of client-go of
# the reference daemons.
.PHONY: bin/fleetsim-reference
bin/fleetsim-reference: need-go
	@cd internal/e2e/fleetsim/reference && GOWORK=off CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -o ../../../../$@ .

.PHONY: clean
clean: ## remove bin/
	rm -rf bin

# The need-* targets check for the commands that a target requires. As root on a system
# with a supported package manager they install missing ones.
.PHONY: need-go need-lint need-demo need-test need-rpm need-repo need-packages need-e2e
need-go:
	@command -v $(GO) >/dev/null || { echo "make: Go 1.26 or newer is required: see https://go.dev/dl" >&2; exit 1; }
need-lint:
	@internal/e2e/need.sh shellcheck $$([ -z "$${E2E_REQUIRE:-}" ] || echo man mandoc journalctl)
need-demo: need-go
	@internal/e2e/need.sh findmnt $$([ "$$(id -u)" != 0 ] || echo mkfs.xfs losetup)
need-test: need-go
	@internal/e2e/need.sh mkfs.xfs mkfs.ext4 losetup findmnt systemd-analyze $$([ -z "$${E2E_REQUIRE:-}" ] || echo ssh sshd tcsh fish zsh ksh busybox rpmbuild rpm jq chromium promtool)
need-rpm: need-go
	@internal/e2e/need.sh rpmbuild rpm
need-repo: need-go
	@internal/e2e/need.sh createrepo_c $(if $(GPG_KEY),gpg rpmsign)
need-packages: need-go
	@internal/e2e/need.sh rpmbuild rpm rpmlint createrepo_c gpg rpmsign
need-e2e: need-test need-packages
	@! command -v apt-get >/dev/null || internal/e2e/need.sh mmdebstrap systemd-nspawn qemu-system-x86_64 busybox cpio depmod mke2fs ssh jq
