# Sluice. "make" alone tells what there is.

GO      ?= go
PREFIX  ?= /usr/local
MANDIR   = $(PREFIX)/share/man
UNITDIR  = $(PREFIX)/lib/systemd/system
SYSUSERS = $(PREFIX)/lib/sysusers.d
CONFDIR ?= /etc/sluice
BIN      = bin/sluice
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 5s
COUNT   ?= 10
CHECKS  ?= 50
ARGS    ?=
# The tests that have a goal (lab.Goal, lab.Quiet).
GOALS    = ^Test(Guest.*Bears|ThrottleIsExact|HoldOutage|DaemonOfAThousand|ThousandExports|ManyExports|NFSAway)

# Tests that need the binary take this one.
export SLUICE_BIN = $(CURDIR)/$(BIN)
GOTEST   = scripts/on-disk $(GO) test
# Lint is about the source: once is enough, without the race detector and whatever the tags.
PACKAGES = $(shell $(GO) list ./... | grep -v '/internal/lint$$')

.DEFAULT_GOAL := help
.PHONY: help build test test-go race interop fuzz-short soak lint fmt tidy-check cover bench goals profile newer-peers demo man install install-daemon deps need-go

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: need-go ## build bin/sluice: static, with the version in it (VERSION=...)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/sluice

# interop runs the tests of test-go too. A test works in a temporary folder: one that leaves a file in the tree fails.
test: need-go deps build ## run everything: lint, tests, race detector, foreign clients and servers; installs what is missing as root
	@$(MAKE) --no-print-directory lint
	@scripts/leaves-nothing $(MAKE) --no-print-directory race
	@scripts/leaves-nothing $(MAKE) --no-print-directory interop

test-go: build ## run the tests that need nothing but Go
	$(GOTEST) $(ARGS) $(PACKAGES)

race: build ## run the same with the race detector (needs gcc)
	CGO_ENABLED=1 $(GOTEST) -race $(ARGS) $(PACKAGES)

interop: build ## run the tests against programs that others wrote (needs "make deps", root)
	$(GOTEST) -tags interop -timeout 15m $(ARGS) $(PACKAGES)

fuzz-short: ## run each fuzz target for FUZZTIME (5s)
	scripts/fuzz $(FUZZTIME)

# A failed device suite prints the seed that it had: make soak SEED=... COUNT=1 ARGS="-run ..." repeats it.
soak: SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))
soak: build ## run the tests COUNT (10) times in random order with the race detector; the device suites try CHECKS (50) new sequences each
	BLOCKTEST_SEED=$(SEED) BLOCKTEST_CHECKS=$(CHECKS) CGO_ENABLED=1 $(GOTEST) -race -shuffle on -count $(COUNT) -timeout 2h $(ARGS) $(PACKAGES)

lint: ## check layers, sizes, vet, staticcheck, errcheck and the house's rules
	$(GO) test ./internal/lint

fmt: ## format the source
	$(GO) fmt ./...

tidy-check: ## check that go.mod and go.sum say what is used
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff

cover: build ## print the coverage of each package; the profile is in build/cover.out
	@mkdir -p build
	$(GOTEST) -coverprofile build/cover.out $(PACKAGES)
	$(GO) tool cover -func build/cover.out | tail -n 1

bench: need-go deps build ## measure us and the peers, write bench/RESULTS.md (ARGS="--quick" and others)
	$(GO) run ./bench $(ARGS)

# Elsewhere these tests ask for times that a busy machine keeps too.
goals: build ## hold the times that we promise to the goals themselves, on a machine that does nothing else (root)
	SLUICE_QUIET=1 $(GOTEST) -tags interop -count 1 -p 1 -v -run '$(GOALS)' $(ARGS) ./internal/lab ./cmd/sluice ./gateway ./gateway/apiclient

# Nothing else needs perf, which is why deps does not install it.
profile: build deps ## show where the server's time goes (LOAD="randread 4k 16"); needs perf: apt-get install linux-perf
	scripts/profile $(LOAD)

newer-peers: build ## try the protocol's extended headers with the clients and servers of Debian 13 (root, debootstrap)
	scripts/newer-peers

# Built as the binary is, so that the two share what they compile.
demo: start := $(shell date +%s)
demo: ## serve an image, boot a guest with it as its disk, show figures and metrics; under 2 minutes, installing included
	@scripts/need-go $(GO)
	@scripts/deps qemu-system-x86_64 fio nbdinfo xz
	@$(MAKE) --no-print-directory build
	CGO_ENABLED=0 $(GO) run -trimpath ./internal/demo
	@echo "== all of it took $$(($$(date +%s) - $(start))) s, installing and building included"

man: build ## write the man pages to build/man
	@mkdir -p build/man
	$(BIN) man build/man

install: build man install-daemon ## install binary, man pages, completions ($(DESTDIR)$(PREFIX)), systemd units and a first configuration
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/sluice
	install -d $(DESTDIR)$(MANDIR)/man1
	install -m 644 build/man/*.1 $(DESTDIR)$(MANDIR)/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BIN) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/sluice
	$(BIN) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sluice
	$(BIN) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sluice.fish

# What the daemon needs around it. A configuration that is there is left alone: it may hold passwords, hence the mode.
install-daemon:
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERS) $(DESTDIR)$(CONFDIR)
	sed -e 's|/usr/local/bin/|$(PREFIX)/bin/|' -e 's|/etc/sluice/|$(CONFDIR)/|' dist/systemd/sluice.service >$(DESTDIR)$(UNITDIR)/sluice.service
	chmod 644 $(DESTDIR)$(UNITDIR)/sluice.service
	install -m 644 dist/systemd/sluice-api.socket dist/systemd/sluice-nbd.socket $(DESTDIR)$(UNITDIR)
	install -m 644 dist/systemd/sluice.sysusers $(DESTDIR)$(SYSUSERS)/sluice.conf
	test -e $(DESTDIR)$(CONFDIR)/sluice.toml || install -m 600 dist/sluice.toml $(DESTDIR)$(CONFDIR)/sluice.toml

deps: ## install the Debian packages that tests, demo and benchmarks need (root)
	@scripts/deps

# Before anything is installed: a missing Go is the one thing that deps does not help with.
need-go:
	@scripts/need-go $(GO)
