# Two commands: `make run` (everything to have a gateway, then the gateway) and `make test` (everything to trust a change).
# Each installs what it lacks. The rest is for people who work on exitgate; CONTRIBUTING.md says which to use when.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
STAGE := .ci/stage
# Where cargo puts what it builds, also for those who have moved it.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## install tor if absent, build, start the gateway with no config file
	@.ci/need cargo cc tor
	cargo build --release --locked
	exec $(TARGET)/release/exitgate serve

test: ## everything but the slowest: format, lints, documents, licences, unit, integration and end-to-end tests
	@.ci/need cargo cc tor curl python3 venv git node npm wget torsocks proxychains4 haproxy promtool
	@$(STAGE) fetch   cargo fetch --locked
	@$(STAGE) format  cargo fmt --all --check
	@$(STAGE) lint    cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(STAGE) lint    cargo clippy --locked --test slow -- -D warnings
	@$(STAGE) doc     env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	@$(STAGE) deny    .ci/deny
	@$(STAGE) build   .ci/cargo-test --no-run
	@$(STAGE) unit    .ci/cargo-test --lib
	@$(STAGE) it      .ci/cargo-test --test it
	@$(STAGE) testnet .ci/cargo-test -p exitgate-testnet
	@$(STAGE) simnet  .ci/cargo-test -p exitgate-simnet -p exitgate-simtor
	@$(STAGE) clients .ci/clients
	@$(STAGE) e2e     .ci/cargo-test --test e2e
	@$(STAGE) report

demo: ## exitgate at work with no internet: a private Tor network, a fake web, and lines to paste; SIMTOR=1 needs no tor
	@.ci/need cargo cc $(if $(SIMTOR),,tor) curl
	$(if $(SIMTOR),cargo build --locked -p exitgate-simtor)
	cargo run --locked --example demo $(if $(SIMTOR),-- --simtor)

verify: ## the slower rest: the shipped binary, from a release build, the console in a browser, the container where Docker is
	@.ci/need cargo cc tor curl git python3 venv node npm shellcheck chromium promtool go javac proxychains4 valgrind
	@$(STAGE) release cargo build --release --locked --bin exitgate
	@$(STAGE) pieces  benches/pieces/run.sh
	@$(STAGE) demo    .ci/try-demo
	@$(STAGE) demo    .ci/try-demo --simtor
	@$(STAGE) kills   env EXITGATE_KILLS=50 .ci/cargo-test --test e2e no_acknowledged_change
	@$(STAGE) dials   env EXITGATE_DIALS=10000 .ci/cargo-test --test it targets_that_fail
	@$(STAGE) config  $(TARGET)/release/exitgate check-config --config config/exitgate.toml
	@$(STAGE) api-fuzz .ci/api-fuzz
	@$(STAGE) clients .ci/clients
	@$(STAGE) slow    .ci/cargo-test --test slow
	@$(STAGE) compose .ci/compose
	@$(STAGE) browser .ci/browser
	@$(STAGE) grafana .ci/grafana
	@$(STAGE) recipes .ci/recipes
	@$(STAGE) actions .ci/actions
	@$(STAGE) siege   env EXITGATE_BIN=$(TARGET)/release/exitgate .ci/cargo-test --test e2e siege::
	@$(STAGE) soak    $(MAKE) --no-print-directory soak MINUTES=5
	@$(STAGE) simnet  $(MAKE) --no-print-directory simnet-verify
	@$(STAGE) report

bench: ## exitgate beside its peers in one run; benches/README.md says how to read it
	@.ci/need cargo cc
	benches/peers/run.sh

bench-api: ## the API with a thousand routes, ten thousand clients, and a hundred proxies made and unmade
	@.ci/need cargo cc python3
	cargo build --release --locked --bin exitgate
	benches/api/run.py $(TARGET)/release/exitgate

bench-pieces: ## instructions of the hot pieces, counted; fails where one is more than 5 % off what is kept
	@.ci/need cargo cc valgrind
	benches/pieces/run.sh

bench-engine: ## engines and circuits beside a plain tor client, in a private Tor network
	@.ci/need cargo cc tor
	cargo build --release --locked --bin exitgate
	cargo run --release --locked --quiet -p exitgate-engine-bench

bench-public: ## public proxies by the thousand: first pass, verdicts, lists, churn for MINUTES (1), restart
	@.ci/need cargo cc
	cargo build --release --locked --bin exitgate
	cargo build --release --locked --quiet -p exitgate-public-bench
	benches/apart $(TARGET)/release/exitgate-public-bench all $(or $(MINUTES),1)

bench-scale: ## what one more tunnel, route and exit costs, ten times as many at each step; draws docs/scale.svg
	@.ci/need cargo cc python3
	cargo build --release --locked --bin exitgate
	cargo build --release --locked -p exitgate-peers -p exitgate-public-bench
	benches/scale/run.py

soak: ## mixed clients and injected faults for MINUTES (30) on a private network; nothing may leak, hang or go wrong
	@.ci/need cargo cc tor
	cargo build --release --locked --bin exitgate
	cargo build --locked -p exitgate-soak
	$(TARGET)/debug/exitgate-soak $(TARGET)/release/exitgate $(or $(MINUTES),30)

simnet: ## the shipped gateway on a simulated public network: all scenarios, or SCENARIO=name; FULL=1 for real time
	@.ci/need cargo cc
	cargo build --release --locked --bin exitgate
	cargo build --release --locked --quiet -p exitgate-simnet -p exitgate-simtor
	tests/simnet/run.sh $(TARGET)/release $(if $(FULL),--full) $(SIMNET) $(SCENARIO)

simnet-verify: ## the scenarios of it that `make verify` runs
	@$(MAKE) --no-print-directory simnet SIMNET=--verify

fmt: ## format everything
	cargo fmt --all

clean-state: ## forget what runs and tests left: the gateway's data folder and the cached test networks
	rm -rf exitgate-data target/testnet

.PHONY: help run test demo verify bench bench-api bench-pieces bench-engine bench-public bench-scale soak simnet simnet-verify fmt clean-state
