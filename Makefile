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
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: build-daemon devcluster ## all binaries into bin/

.PHONY: build-daemon
build-daemon: $(BINARIES:%=bin/%) ## the daemons and their tools, static, version from git

# go build knows best what is out of date.
.PHONY: $(BINARIES:%=bin/%)
$(BINARIES:%=bin/%): bin/%: need-go
	@mkdir -p bin
	$(STATIC) -o $@ ./cmd/$*

# The test build can die at a failpoint and knows what mount helpers' stand-ins
# really mount. It is never installed.
.PHONY: build-test
build-test: need-go
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -tags failpoints -o bin/clientmountd-failpoints ./cmd/clientmountd

# The stand-ins for the programs of a compute node, which the tests log and break.
.PHONY: bin/standin
bin/standin: need-go
	@mkdir -p bin && CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath -o $@ ./internal/e2e/standin

.PHONY: devcluster
devcluster: need-go ## bin/devcluster, a real Kubernetes API server in one process (first build: 4–5 minutes)
	@internal/devcluster/build.sh

# The packages, into bin/rpm. They are built from the source archive, which has the
# modules of the build, so that the source RPM makes the same.
ARCHES ?= amd64 arm64
.PHONY: rpm srpm repo sbom snapshot rpm-source
rpm: rpm-source ## the packages, into bin/rpm (ARCHES="amd64 arm64", Go's names)
	packaging/rpm.sh bin/rpm bin/packager $(ARCHES)

srpm: need-rpm rpm-source ## the source package, into bin/rpm
	packaging/srpm.sh bin/rpm

rpm-source: need-go bin/packager
	VERSION=$(VERSION) packaging/source.sh bin/rpm bin/packager

repo: need-repo rpm ## a dnf repository with the packages, in bin/repo (REPO_URL=https://… it is served at, GPG_KEY=… to sign it)
	REPO_URL='$(REPO_URL)' GPG_KEY='$(GPG_KEY)' packaging/repo.sh bin/repo bin/rpm/*.rpm

# The tools are pinned in a module of its own, which the daemons' go.mod does not list.
PACKAGING_TOOL := cd packaging/tools && GOWORK=off $(GO) build -buildvcs=false -trimpath -o ../../bin/
bin/packager: $(wildcard packaging/tools/packager/*.go) packaging/tools/go.mod packaging/tools/go.sum
	@mkdir -p bin
	$(PACKAGING_TOOL) ./packager
bin/cyclonedx-gomod: packaging/tools/go.mod packaging/tools/go.sum
	@mkdir -p bin
	$(PACKAGING_TOOL) github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

sbom: build-daemon bin/cyclonedx-gomod ## the modules in each program, CycloneDX, into bin/sbom
	@mkdir -p bin/sbom
	$(foreach b,$(BINARIES),packaging/sbom.sh bin/$(b) bin/sbom/$(b).cdx.json $(VERSION);)

# Takes minutes to build and has hundreds of modules, so no go.sum of ours lists
# them: the version and Go's checksum database pin it.
GORELEASER := github.com/goreleaser/goreleaser/v2@v2.15.4
bin/goreleaser:
	GOBIN=$(CURDIR)/bin GOFLAGS=-buildvcs=false $(GO) install $(GORELEASER)

snapshot: bin/goreleaser bin/cyclonedx-gomod rpm srpm ## everything that a release has, into dist/ (first time: minutes)
	VERSION=$(VERSION) TREE=$(CURDIR) bin/goreleaser check
	VERSION=$(VERSION) TREE=$(CURDIR) bin/goreleaser release --snapshot --clean

.PHONY: demo
demo: need-demo build-daemon build-test devcluster bin/standin ## a ClientMount is mounted, a job copies from it, and everything is removed again
	@$(GO) build -buildvcs=false -trimpath -o bin/demo ./internal/e2e/demo
	@bin/demo

.PHONY: test
test: need-test need-lint ## everything: check, then real mounts and a real API server (CRDS=DIR: the conformance suites on those definitions)
	@$(MAKE) --no-print-directory -j 2 check devcluster
	@$(MAKE) --no-print-directory build-daemon build-test
	@$(MAKE) --no-print-directory -j 2 --output-sync=target $(SUITES)

# Make would hand a variable of its command line to every program.
unexport CRDS

# What needs a whole machine, by package, two at a time, the longest first. The
# crash matrix runs from its directory, where go test shows its counts. With CRDS the
# conformance suites run on those definitions; all others use those of devcluster.
E2E    := crash conformance apiserver offload dmapiserver abuse demo
E2E    := $(filter $(patsubst internal/e2e/%/,%,$(wildcard internal/e2e/*/)),$(E2E))
SUITES := suite-crash $(if $(CRDS),suite-crds) $(patsubst %,suite-%,$(filter-out crash $(if $(CRDS),conformance offload),$(E2E))) suite-devcluster suite-others
MACHINES := machine/container machine/fleet machine/vm
suite-%:
	$(GO) test -buildvcs=false -count=1 -timeout 20m ./internal/e2e/$*
.PHONY: suite-crash suite-crds suite-devcluster suite-others
suite-crash:
	cd internal/e2e/crash && $(GO) test -buildvcs=false -count=1 -timeout 20m
suite-devcluster:
	internal/devcluster/build.sh --test -count=1 -timeout 10m
suite-crds:
	@[ -d "$(CRDS)" ] || { echo "make: CRDS must name a directory with CustomResourceDefinitions" >&2; exit 1; }
	CRDS=$(CRDS) $(GO) test -buildvcs=false -count=1 -p 1 -timeout 20m $(patsubst %,./internal/e2e/%,$(filter conformance offload,$(E2E)))
suite-others:
	$(GO) test -buildvcs=false -count=1 -p 1 -timeout 20m $$($(GO) list ./internal/e2e/... | grep -vE '/e2e/($(subst $(eval) ,|,$(E2E) $(MACHINES) packages))$$')

# Whole machines: systemd in a container, then a virtual machine. Both come from
# one root file system, which is made once (about a minute), and have the packages
# of this tree. The tests of the packages themselves come first. The first time they
# compile nfpm, and the daemons from their vendored modules, which takes minutes.
.PHONY: e2e e2e-packages e2e-machine e2e-rpm e2e-container e2e-fleet e2e-vm e2e-one-by-one
e2e: need-e2e build-daemon devcluster ## the packages, and the installed daemons on whole machines: systemd in a container, a fleet of those, a virtual machine (15-25 minutes)
	@began=$$SECONDS; rm -f bin/e2e.times; \
	for stage in packages machine rpm; do $(MAKE) --no-print-directory timed-e2e-$$stage; done; \
	$(MAKE) --no-print-directory -j 2 --output-sync=target timed-e2e-fleet e2e-one-by-one; \
	cat bin/e2e.times >&2; echo "make: e2e took $$((SECONDS - began)) s" >&2
# The fleet waits most of the time, the emulator computes: side by side they need
# little more than one of them.
e2e-one-by-one:
	@$(MAKE) --no-print-directory timed-e2e-container
	@$(MAKE) --no-print-directory timed-e2e-vm
timed-%:
	@began=$$SECONDS; $(MAKE) --no-print-directory $* E2E_NEEDS=; echo "make: $* took $$((SECONDS - began)) s" >>bin/e2e.times
e2e-packages: need-packages bin/packager bin/cyclonedx-gomod ## the packages: contents, both ways of building them, the same bytes again, install to remove, repository
	cd packaging/tools && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) test -buildvcs=false -count=1 ./...
	$(GO) test -buildvcs=false -count=1 -timeout 30m ./internal/e2e/packages
e2e-machine:
	@internal/e2e/machine/prepare.sh || [ $$? = 3 ] # 3: not here; the tests say so
e2e-rpm: need-go # for the machines, which are amd64
	@$(MAKE) --no-print-directory rpm ARCHES=amd64
E2E_NEEDS := build-daemon bin/packager e2e-rpm
e2e-container e2e-fleet e2e-vm: e2e-%: $(E2E_NEEDS) ## the installed daemons on whole machines, one kind of them
	cd internal/e2e/machine/$* && E2E_MACHINE=1 $(GO) test -buildvcs=false -count=1 -timeout 30m -v .

.PHONY: test-crds
test-crds: need-test devcluster build-daemon build-test suite-crds ## the conformance suites on the definitions in CRDS=DIR

.PHONY: check
check: lint unit fuzz ## lint, the unit tests, and every fuzz target

.PHONY: unit
unit: need-go ## the unit tests
	$(GO) test -buildvcs=false $$($(GO) list ./... | grep -v /internal/e2e)

FUZZTIME ?= 4s
.PHONY: fuzz
fuzz: need-go ## every fuzz target for 4 s (FUZZTIME=30s; FUZZTIME=0 runs none)
	@[ "$(FUZZTIME)" = 0 ] || internal/e2e/fuzz.sh $(FUZZTIME)

.PHONY: generate
generate: need-go ## Go code of the .proto files, man pages, completion, message catalogue, tables of records
	@internal/api/datamovement/generate.sh
	@$(GO) run -buildvcs=false ./packaging/generate

.PHONY: lint
lint: need-go need-lint ## gofmt, vet, staticcheck, shellcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); [ -z "$$bad" ] || { echo "not gofmt'ed: $$bad" >&2; exit 1; }
	$(GO) vet -buildvcs=false ./...
	$(GO) vet -buildvcs=false -tags failpoints ./internal/clientmount/...
	cd internal/tools && $(GO) build -buildvcs=false -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck ./...
	shellcheck $$(git ls-files '*.sh' .ci/run 2>/dev/null || find . -name '*.sh')
	shellcheck --shell=bash $$(find packaging/completion -maxdepth 1 -type f)

.PHONY: bench
bench: need-test build-daemon devcluster bin/standin ## measured figures beside their targets (6 minutes; BENCHFLAGS=--json, --check)
	@$(GO) build -buildvcs=false -trimpath -o bin/bench ./internal/e2e/bench
	@bin/bench $(BENCHFLAGS)

.PHONY: clean
clean: ## remove bin/
	rm -rf bin

# What a target needs is checked for, and installed where a package manager and
# the rights for it are at hand.
.PHONY: need-go need-lint need-demo need-test need-rpm need-repo need-packages need-e2e
need-go:
	@command -v $(GO) >/dev/null || { echo "make: Go 1.26 or newer is needed: see https://go.dev/dl" >&2; exit 1; }
need-lint:
	@internal/e2e/need.sh shellcheck $$([ -z "$${E2E_REQUIRE:-}" ] || echo man mandoc journalctl)
need-demo: need-go
	@internal/e2e/need.sh findmnt $$([ "$$(id -u)" != 0 ] || echo mkfs.xfs losetup)
need-test: need-go
	@internal/e2e/need.sh mkfs.xfs losetup findmnt systemd-analyze $$([ -z "$${E2E_REQUIRE:-}" ] || echo ssh sshd tcsh fish zsh)
need-rpm: need-go
	@internal/e2e/need.sh rpmbuild rpm
need-repo: need-go
	@internal/e2e/need.sh createrepo_c $(if $(GPG_KEY),gpg rpmsign)
need-packages: need-go
	@internal/e2e/need.sh rpmbuild rpm rpmlint createrepo_c gpg rpmsign
need-e2e: need-test need-packages
	@! command -v apt-get >/dev/null || internal/e2e/need.sh mmdebstrap systemd-nspawn qemu-system-x86_64 busybox cpio depmod mke2fs ssh
