# `make up` builds Weir and starts it; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up build web test crash lint deny docs bench fuzz clean tools

# Where cargo builds, also when the caller says so by CARGO_TARGET_DIR.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Tools that install.sh or CI built for this project alone.
export PATH := $(or $(WEIR_CACHE),$(HOME)/.cache/weir)/tools/bin:$(HOME)/.cargo/bin:$(PATH)

help: ## This list.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

up: tools ## Builds Weir and starts it: this machine live in a browser; Ctrl-C ends it.
	@if [ ! -x target/release/weir ]; then \
	  echo "Building Weir: about 8 minutes on two cores the first time, seconds after that."; fi
	@$(MAKE) --no-print-directory build
	@exec target/release/weir up

build: web ## Builds target/release/weir, the dashboard inside.
	cargo build --release --locked -p weir
	@if [ "$(TARGET)" != target ]; then install -D "$(TARGET)/release/weir" target/release/weir; fi

# The dashboard's files, which the program embeds. Built anew only when a source of theirs is newer.
web: web/dist/index.html

web/dist/index.html: web/node_modules/.package-lock.json $(shell find web/src web/public web/index.html web/*.ts -type f 2>/dev/null)
	cd web && npm run --silent build

web/node_modules/.package-lock.json: web/package-lock.json | tools
	cd web && npm ci --silent --no-audit --no-fund

test: web ## Installs the test services that are missing, then runs every test.
	@tests/install.sh
	cd web && npm run --silent test && npm run --silent size
	@mkdir -p "$(TARGET)" && rm -f "$(TARGET)/skipped-peers.txt"
	@# Program and tests in one go, or cargo would compile tokio and all above it twice.
	cargo build --locked --workspace --bins --tests
	@status=0; WEIR_BIN="$(abspath $(TARGET))/debug/weir" cargo test --locked --workspace --no-fail-fast || status=$$?; \
	  tests/skipped.sh "$(TARGET)/skipped-peers.txt"; exit $$status

crash: ## Proves delivery at length: 1,000,000 simulated crashes, 2,000 real kills; about an hour.
	WEIR_SEEDS="$(or $(WEIR_SEEDS),1000000)" cargo test --release --locked -p weir-pipeline --lib durable::tests::model -- --nocapture
	cargo build --release --locked -p weir
	WEIR_BIN="$(abspath $(TARGET))/release/weir" WEIR_CRASH_ROUNDS="$(or $(WEIR_CRASH_ROUNDS),2000)" \
	  cargo test --locked -p weir-tests --test all delivery::kill -- --nocapture

lint: web deny ## Format, clippy, types, size of files, arrows between crates, licences.
	cd web && npm run --silent check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --quiet -p weir-tests --test house

deny:
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level warn check licenses bans sources; else \
	  echo "SKIPPED: licences, bans and sources of dependencies, because cargo-deny is missing."; \
	  echo "         Install it: cargo install cargo-deny --version 0.20.2 --locked"; fi

docs: tools ## Writes what is made from the code: the integrations' pages, the API document, the dashboard's types.
	cargo run --quiet --locked -p weir -- docs --out docs/integrations
	cargo run --quiet --locked -p weir -- openapi > web/openapi.json
	cd web && npm run --silent generate

bench: build ## Compares Weir with its peers, side by side.
	bench/run.sh

fuzz: tools ## Feeds every parser of outside bytes with hostile input.
	fuzz/run.sh

clean: ## Removes everything that was built.
	cargo clean

# What building needs. Each missing tool is named with the command that installs it.
tools:
	@missing=0; need() { missing=1; echo "$$1 is missing. Install it: $$2" >&2; }; \
	command -v cargo >/dev/null || need "Rust" "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"; \
	command -v npm >/dev/null || need "Node.js 20 or newer with npm" "https://nodejs.org, or apt-get install nodejs npm"; \
	for compiler in cc c++; do command -v $$compiler >/dev/null || \
	  need "A compiler for C and C++ ($$compiler)" "apt-get install build-essential  (Debian, Ubuntu; as root or with sudo)"; done; \
	if command -v cargo >/dev/null; then \
	  version=$$(cargo --version 2>/dev/null | awk '{split($$2, v, "."); print v[1] * 1000 + v[2]}'); \
	  [ "$${version:-0}" -ge 1095 ] || need "Rust 1.95 or newer" "rustup toolchain install 1.95.0"; fi; \
	exit $$missing
