#!/usr/bin/env bash
# Compares the pictures of the documentation, docs/*.svg, with spans of the real gateway and data of a real Prometheus.
# `pictures.sh --write` redraws them.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
. tests/tools.sh

if ! command -v prometheus >/dev/null; then
  packages prometheus || {
    echo "Prometheus is not available: the pictures were not checked"
    [ -z "${CI:-}" ] || exit 1 # CI must have it
    exit 0
  }
fi
venv pictures grpcio-tools==1.85.1 opentelemetry-proto==1.45.2
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
"$tools/bin/python" tests/deploy/pictures.py "$target" "$@"
