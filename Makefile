# The commands of a contributor. `make` lists them. `.ci/run` calls `make ci`.
# Each target installs the tools that it needs, and reports what it had to skip.

.DEFAULT_GOAL := help
.PHONY: help quickstart emulator test interleavings lint format doc secrets proto proto-release instructions instructions-write rig \
  rig-write bench scaling soak conformance dependencies deploy api-write pictures pictures-write status-page status-page-write clients programs programs-write sdk fuzz ci

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 20

quickstart: ## run the gateway with an emulated SCM: a certificate from its application until it is issued
	cargo run --example quickstart

emulator: ## run an emulated SCM, and print the variables for a gateway in another terminal
	cargo run --example scm-emulator

test: ## run all test suites; one suite: cargo test --test e2e; one module: cargo test --test e2e reload::
	cargo test

lint: ## check format, clippy and rustdoc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

format: ## format the Rust sources
	cargo fmt --all

interleavings: ## explore the interleavings of calls around circuit breaker, credentials, throttle, quotas and the channel of watches
	cargo test --locked --lib --features shuttle interleavings
	cargo clippy --locked --lib --tests --features shuttle -- -D warnings

secrets: ## look for secrets and personal data in everything that the suites logged (after `make test`)
	tests/secrets.sh

proto: ## lint the proto, and check that it breaks no client of the last release
	tests/proto.sh

api-write: ## generate docs/api.md, the table of docs/errors.md and the chart's methods from the protos; `cargo test --test api` compares them
	UPDATE=1 cargo test --locked --test api

proto-release: ## store the proto that clients may rely on from now on
	tests/proto.sh --release

instructions: ## count the instructions per call, beside those of the floor
	tests/load/instructions.sh

instructions-write: ## store the instructions per call
	tests/load/instructions.sh --write

rig: ## measure the cost of a call, beside the floor and Envoy
	tests/load/rig.sh

rig-write: ## measure, and update docs/performance.md and its picture
	tests/load/rig.sh --write

bench: ## time the pure parts of a call, and count their allocations
	cargo bench --bench pure

scaling: ## measure how several gateways share a quota (8 minutes)
	cargo bench --bench scaling

soak: ## run two instances at half capacity for 30 minutes, with faults, rotations and restarts; shorter: SOAK_MINUTES=3 make soak
	cargo bench --profile dev --bench soak

conformance: ## run the RFC 9113 suite against the real binary
	tests/conformance.sh

dependencies: ## check licenses, sources, duplicates and advisories of the dependencies
	tests/dependencies.sh

deploy: ## run everything in deploy/: image, chart, manifest, systemd, mesh, alerts (after `make test`)
	tests/deploy/all.sh

pictures: ## check that the pictures in docs/ show what the gateway does
	tests/deploy/pictures.sh

pictures-write: ## redraw the pictures in docs/
	tests/deploy/pictures.sh --write

status-page: ## open the status page in Chromium: light and dark, wide and narrow, without errors
	tests/deploy/status_page.sh

status-page-write: ## the same, and redraw docs/status.png
	tests/deploy/status_page.sh --write

clients: ## run clients in other languages, generated from the proto; one: tests/clients/run.sh python
	tests/clients/run.sh

programs: ## run the programs that README.md and docs/clients show
	tests/clients/readme.sh

programs-write: ## copy the programs into README.md and docs/clients
	python3 tests/clients/readme.py --write

sdk: ## call the emulator with the vendor's Python SDK: every v3 operation, and with temporary credentials
	tests/emulator/sdk.sh

fuzz: ## fuzz every parser of outside bytes, 30 seconds each; one: tests/fuzz.sh csr
	tests/fuzz.sh

ci: proto lint test interleavings secrets instructions quickstart conformance dependencies deploy status-page clients programs sdk fuzz ## run everything
