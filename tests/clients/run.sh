#!/usr/bin/env bash
# Clients in other languages, made from the proto alone, call the real gateway: each has to print what expected.txt says.
# `run.sh python` runs one. CONTRIBUTING.md says more.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools="$PWD/target/tools/clients"

if [ ! -f "$tools/installed" ]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check grpcio-tools==1.85.1 grpcio-status==1.85.1 \
    grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1
  if command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --prefix "$tools/node" @grpc/grpc-js@1.14 @grpc/proto-loader@0.8 \
      google-proto-files@5 grpc-health-check@2 >/dev/null
  fi
  touch "$tools/installed"
fi
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
GRPC_VERBOSITY=NONE PYTHONPATH=tests/deploy "$tools/bin/python" tests/clients/run.py "${CARGO_TARGET_DIR:-target}" "$tools" "$@"
