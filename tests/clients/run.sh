#!/usr/bin/env bash
# Runs clients in other languages, generated from the proto, against the real gateway. Each must print the lines of
# expected.txt. `run.sh python` runs one. See CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
go="$PWD/target/tools/go"

venv clients grpcio-tools==1.85.1 grpcio-status==1.85.1 grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1
if [ ! -d "$tools/proto" ]; then
  # Ruby, Java and C++ of Debian. Without them run.py skips these clients and reports the skip.
  packages ruby ruby-grpc ruby-grpc-tools protobuf-compiler-grpc libgrpc++-dev libprotobuf-dev pkg-config "${grpc_java[@]}" ||
    echo "some packages could not be installed"
  # Google's protos, for the languages whose libraries do not contain them.
  command -v npm >/dev/null || { echo "npm not found: skipped all clients"; exit 0; }
  npm install --silent --no-fund --no-audit --prefix "$tools/node" @grpc/grpc-js@1.14 @grpc/proto-loader@0.8 \
    google-proto-files@5 grpc-health-check@2 >/dev/null
  mkdir -p "$tools/proto/grpc/health/v1"
  cp -r "$tools/node/node_modules/google-proto-files/google" "$tools/proto/"
  cp "$tools/node/node_modules/grpc-health-check/proto/health/v1/health.proto" "$tools/proto/grpc/health/v1/"
fi
mkdir -p "$go"
(cd "$go" && "$OLDPWD/tests/clients/go/debian13.sh") || echo "Go of Debian 13 could not be unpacked"
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
GRPC_VERBOSITY=NONE PYTHONPATH=tests/deploy "$tools/bin/python" tests/clients/run.py "${CARGO_TARGET_DIR:-target}" "$tools" "$@"
