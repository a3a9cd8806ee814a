# The two main commands are `make run`, which builds and starts a gateway, and `make test`, which checks a change. Each installs what it needs.
# The other commands are for work on exitgate; CONTRIBUTING.md says when to use which.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
STAGE := .ci/stage
# The folder of cargo's output; CARGO_TARGET_DIR may have moved it.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## install tor if absent, build, start the gateway with no config file
	@.ci/need cargo cc tor
	cargo build --release --locked
	exec $(TARGET)/release/exitgate serve

# Where `make install` puts the binary, with sudo where that is needed; PREFIX=$$HOME/.local/bin needs none.
PREFIX ?= /usr/local/bin

install: ## build the release binary and copy it to PREFIX (/usr/local/bin); `exitgate` is then a command
	@.ci/need cargo cc
	cargo build --release --locked --bin exitgate
	@dir="$(DESTDIR)$(PREFIX)"; as=; { mkdir -p "$$dir" && [ -w "$$dir" ]; } 2>/dev/null || as=sudo; \
	$$as mkdir -p "$$dir" && $$as install -m 755 $(TARGET)/release/exitgate "$$dir/exitgate" && \
	echo "installed: $$dir/exitgate (tor is not included: \`make run\` installs it)"

deb: ## build the release binary and its Debian package, for this release of Debian or Ubuntu and later ones
	@.ci/need cargo cc dpkg-shlibdeps
	cargo build --release --locked --bin exitgate
	packaging/deb/build

test: ## check a change: format, commit messages, lints, documents, licences, unit, integration and end-to-end tests
	@.ci/need cargo cc tor curl python3 venv git node npm wget torsocks proxychains4 haproxy promtool zsh fish
	@$(STAGE) fetch   cargo fetch --locked
	@$(STAGE) format  cargo fmt --all --check
	@$(STAGE) format  .ci/subjects-test
	@$(STAGE) format  .ci/recommended-tor-test
	@$(STAGE) format  .ci/subjects
	@$(STAGE) lint    cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(STAGE) lint    cargo clippy --locked --test slow -- -D warnings
	@$(STAGE) dead    cargo clippy --locked --example dead_code --features dead-code -- -D dead_code -A unused_imports
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

demo: ## try exitgate without internet: a private Tor network, a fake web, and commands to paste; SIMTOR=1 needs no tor
	@.ci/need cargo cc $(if $(SIMTOR),,tor) curl
	$(if $(SIMTOR),cargo build --locked -p exitgate-simtor)
	cargo run --locked --example demo $(if $(SIMTOR),-- --simtor)

verify: ## the slower tests: the release binary, the Debian package, the console in a browser, the container if there is Docker, a soak test
	@.ci/need cargo cc tor curl git python3 venv node npm shellcheck chromium promtool go javac proxychains4 valgrind
	@$(STAGE) release cargo build --release --locked --bin exitgate
	@$(STAGE) pieces  benches/pieces/run.sh
	@$(STAGE) demo    .ci/try-demo
	@$(STAGE) demo    .ci/try-demo --simtor
	@$(STAGE) kills   env EXITGATE_KILLS=50 .ci/cargo-test --test e2e no_acknowledged_change
	@$(STAGE) counts  env EXITGATE_KILLS=50 .ci/cargo-test --test e2e what_was_counted
	@$(STAGE) pace    env EXITGATE_E2E_PACE=shipped .ci/cargo-test --test e2e -- --skip siege:: --skip clients:: --skip attack::
	@$(STAGE) dials   env EXITGATE_DIALS=10000 .ci/cargo-test --test it targets_that_fail
	@$(STAGE) config  $(TARGET)/release/exitgate check-config --config config/exitgate.toml
	@$(STAGE) deb     .ci/deb
	@$(STAGE) api-fuzz .ci/api-fuzz
	@$(STAGE) clients .ci/clients
	@$(STAGE) slow    .ci/cargo-test --test slow
	@$(STAGE) compose .ci/compose
	@$(STAGE) browser .ci/browser
	@$(STAGE) docs-site .ci/docs-site
	@$(STAGE) grafana .ci/grafana
	@$(STAGE) recipes .ci/recipes
	@$(MAKE) --no-print-directory kits
	@$(STAGE) actions .ci/actions
	@$(STAGE) siege   env EXITGATE_BIN=$(TARGET)/release/exitgate .ci/cargo-test --test e2e siege::
	@$(STAGE) soak    $(MAKE) --no-print-directory soak MINUTES=5
	@$(STAGE) simnet  $(MAKE) --no-print-directory simnet-verify
	@$(STAGE) report

docs-site: ## make the documents into a site and check its links; `.ci/browser screenshots` makes its pictures
	@.ci/need python3 venv
	@.ci/docs-site

kits: kit-python ## test the kits for scrapers: built, installed, and run with the real frameworks against the demo

kit-python: ## the kit for Python alone
	@.ci/need cargo cc python3 venv chromium openssl
	@$(STAGE) kit-python .ci/kit-python

bench: ## measure exitgate beside its peers in one run; benches/README.md says how to read the tables
	@.ci/need cargo cc
	benches/peers/run.sh

bench-api: ## measure the API with a thousand routes, ten thousand clients, and a hundred routes created and deleted
	@.ci/need cargo cc python3
	cargo build --release --locked --bin exitgate
	benches/api/run.py $(TARGET)/release/exitgate

bench-pieces: ## count the instructions of hot pieces of code; fails if a count differs by more than 5 % from the expected one
	@.ci/need cargo cc valgrind
	benches/pieces/run.sh

bench-engine: ## measure engines and circuits beside a plain tor client, in a private Tor network
	@.ci/need cargo cc tor
	cargo build --release --locked --bin exitgate
	cargo run --release --locked --quiet -p exitgate-engine-bench

bench-public: ## measure thousands of public proxies: first pass, verdicts, lists, churn for MINUTES (1), restart
	@.ci/need cargo cc
	cargo build --release --locked --bin exitgate
	cargo build --release --locked --quiet -p exitgate-public-bench
	benches/apart $(TARGET)/release/exitgate-public-bench all $(or $(MINUTES),1)

bench-scale: ## measure what one more tunnel, route and exit costs, ten times as many at each step; draws docs/scale.svg
	@.ci/need cargo cc python3
	cargo build --release --locked --bin exitgate
	cargo build --release --locked -p exitgate-peers -p exitgate-public-bench
	benches/scale/run.py

soak: ## run clients and inject faults for MINUTES (30) on a private network; nothing may leak, hang or use a wrong exit
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

kit-node: ## the kit for Node alone: built, installed, and run with the real frameworks against the demo
	@.ci/need node npm chromium openssl
	@$(STAGE) kit-node .ci/kit-node

kits: kit-node
.PHONY: kits kit-node

fmt: ## format everything
	cargo fmt --all

clean-state: ## delete the gateway's data folder and the cached test networks
	rm -rf exitgate-data target/testnet

.PHONY: help run install deb test demo verify docs-site kits kit-python bench bench-api bench-pieces bench-engine bench-public bench-scale soak simnet simnet-verify fmt clean-state
