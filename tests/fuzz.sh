#!/usr/bin/env bash
# Fuzzes each target for 20 seconds. Needs nightly Rust and cargo-fuzz; without them it reports that fuzzing was skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v cargo-fuzz >/dev/null || ! rustc --version | grep -q nightly; then
  echo "no nightly Rust with cargo-fuzz: fuzzing was skipped"
  exit 0
fi
for target in reply error_body csr canonical_request; do
  cargo fuzz run --fuzz-dir tests/fuzz "$target" -- -max_total_time=20
done
