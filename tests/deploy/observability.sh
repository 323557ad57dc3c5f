#!/usr/bin/env bash
# Tests alerts, dashboard, runbook and Collector configuration: unit tests of the rules, existing metric names, and data in a
# real Prometheus that scrapes the real gateway. Needs the series that `cargo test` recorded.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
. tests/tools.sh

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
  packages prometheus || { echo "Prometheus is not available: alerts and dashboard were not tested"; exit 0; }
fi
venv observability promql-parser==0.12.0 PyYAML==6.0.3 grpcio-tools==1.85.1 prometheus-client==0.26.0

promtool check rules deploy/helm/scm-gateway/files/alerts.yaml
promtool test rules tests/deploy/alerts_test.yaml
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
"$tools/bin/python" tests/deploy/observability.py "$target"
