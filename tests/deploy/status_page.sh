#!/usr/bin/env bash
# Opens the status page of the real gateway in a real Chromium, and validates /status against docs/status.schema.json.
# `status_page.sh --write` redraws docs/status.png.
set -euo pipefail
cd "$(dirname "$0")/../.."
target="${CARGO_TARGET_DIR:-target}"
. tests/tools.sh

if ! command -v chromium >/dev/null; then
  packages chromium fonts-dejavu-core || {
    echo "Chromium is not available: the status page was not opened in a browser"
    [ -z "${CI:-}" ] || exit 1 # CI must have it
    exit 0
  }
fi
venv status playwright==1.65.2 grpcio-tools==1.85.1 jsonschema==4.26.0
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
"$tools/bin/python" tests/deploy/status_page.py "$target" "$@"
