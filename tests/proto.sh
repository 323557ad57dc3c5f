#!/usr/bin/env bash
# Lints the proto, and checks that it is compatible with the released one. `proto.sh --release` stores the released proto
# in tests/released.binpb, because a shallow clone may not contain it.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v npx >/dev/null || { echo "no npx: the proto was not checked"; exit 0; }
buf() { npx --yes @bufbuild/buf@1.75.0 "$@"; }

buf lint
buf breaking --against tests/released.binpb
[ "${1:-}" != --release ] || buf build --exclude-source-info -o tests/released.binpb
