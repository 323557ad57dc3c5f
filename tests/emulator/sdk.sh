#!/usr/bin/env bash
# Calls the emulator with the vendor's Python SDK: whether the emulator is like the vendor. See CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh

venv sdk huaweicloudsdkscm==3.1.219 huaweicloudsdksts==3.1.219 huaweicloudsdkcore==3.1.219
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
for script in sdk sdk_credentials; do
  PYTHONPATH=tests/deploy "$tools/bin/python" "tests/emulator/$script.py" "${CARGO_TARGET_DIR:-target}"
done
