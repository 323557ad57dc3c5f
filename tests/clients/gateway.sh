#!/usr/bin/env bash
# Runs a command next to an emulator and a gateway on their default addresses, in a separate network namespace.
# Usage: gateway.sh TARGET_DIRECTORY COMMAND… The logs of both go to the working directory.
set -euo pipefail
target="$1"

if [ -z "${IN_NAMESPACE:-}" ]; then
  namespace=(--net)
  [ "$(id -u)" = 0 ] || namespace+=(--map-root-user)
  IN_NAMESPACE=1 exec unshare "${namespace[@]}" "$0" "$@"
fi
ip link set lo up
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
await() {
  for _ in $(seq 100); do
    grep -qs "$1" "$2" && return
    sleep 0.1
  done
  echo "timed out waiting for $1 in $2"
  exit 1
}

rm -f emulator.log gateway.log
"$target/debug/examples/scm-emulator" >emulator.log &
await ENDPOINT emulator.log
source <(grep ^export emulator.log)
SCM_GATEWAY__SERVER__LAME_DUCK=0s "$target/debug/scm-gateway" >gateway.log &
await '"message":"serving"' gateway.log
"${@:2}"
