#!/usr/bin/env bash
# Alerts, dashboard, runbook and Collector configuration: their rules are unit-tested, what they name is there, and a real
# Prometheus that scrapes the real gateway finds data for them. Needs the series that `cargo test` noted.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
. tests/tools.sh

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  packages prometheus || { echo "no Prometheus to be had: alerts and dashboard were not tested"; exit 0; }
fi
venv observability promql-parser==0.12.0 PyYAML==6.0.3 grpcio-tools==1.85.1

promtool check rules deploy/helm/scm-gateway/files/alerts.yaml
promtool test rules tests/deploy/alerts_test.yaml
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
"$tools/bin/python" tests/deploy/observability.py "$target"
