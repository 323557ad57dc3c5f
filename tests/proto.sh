#!/usr/bin/env bash
# The proto: that it reads well, and that no client of what was released is broken. `proto.sh --release` notes what is
# released, in tests/released.binpb: a clone may be too shallow to look it up.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v npx >/dev/null || { echo "no npx: the proto was not looked at"; exit 0; }
buf() { npx --yes @bufbuild/buf@1.75.0 "$@"; }

buf lint
buf breaking --against tests/released.binpb
[ "${1:-}" != --release ] || buf build --exclude-source-info -o tests/released.binpb
