#!/usr/bin/env bash
# The pictures of the documentation, docs/*.svg: that they say what the real gateway does, by its spans and by a real
# Prometheus. `pictures.sh --write` draws them anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
. tests/tools.sh

if ! command -v prometheus >/dev/null; then
  packages prometheus || {
    echo "no Prometheus to be had: the pictures were not looked at"
    [ -z "${CI:-}" ] || exit 1 # there it can be had
    exit 0
  }
fi
venv pictures grpcio-tools==1.85.1 opentelemetry-proto==1.45.2
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
"$tools/bin/python" tests/deploy/pictures.py "$target" "$@"
