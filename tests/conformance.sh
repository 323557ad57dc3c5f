#!/usr/bin/env bash
# Runs the RFC 9113 suite of httpwg-cli against the real binary. At least `minimum` of its 107 cases must pass. One case
# does not apply because it expects a 200, h2 does not implement two, and one is flaky: it sends GOAWAY and then checks
# that the connection is open.
set -euo pipefail
minimum=100

cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
httpwg="$target/httpwg/bin/httpwg"
if [ ! -x "$httpwg" ]; then
  # With its own lock file, because newer releases of its dependencies do not compile together.
  cargo install --locked --quiet httpwg-cli@0.2.5 --root "$target/httpwg" --target-dir "$target/httpwg/target" ||
    { echo "httpwg-cli could not be installed: conformance to RFC 9113 was not measured"; exit 0; }
fi
cargo build --locked --quiet

log="$(mktemp)"
HUAWEICLOUD_SDK_AK=ak HUAWEICLOUD_SDK_SK=sk HUAWEICLOUD_SDK_PROJECT_ID=p \
  SCM_GATEWAY__UPSTREAM__ENDPOINT=http://127.0.0.1:9 SCM_GATEWAY__SERVER__LAME_DUCK=0s \
  SCM_GATEWAY__SERVER__LISTEN=127.0.0.1:0 SCM_GATEWAY__ADMIN__LISTEN=127.0.0.1:0 \
  "$target/debug/scm-gateway" >"$log" &
gateway=$!
trap 'kill "$gateway" 2>/dev/null; rm -f "$log"' EXIT

address=""
for _ in $(seq 100); do
  address="$(sed -n 's/.*"message":"serving","listen":"\([^"]*\)".*/\1/p' "$log")"
  [ -n "$address" ] && break
  sleep 0.1
done

result="$("$httpwg" --frame-timeout 2000 -a "$address" 2>&1 || true)" # exits with an error if any case fails
passed="$(sed -n 's/.*Passed [^0-9]*[0-9;]*m*\([0-9]*\)\/107.*/\1/p' <<<"$result")"
echo "RFC 9113: ${passed:-0} of 107 cases passed, at least $minimum are required"
if [ "${passed:-0}" -lt "$minimum" ]; then
  grep -a 'Test failed' <<<"$result" || true
  exit 1
fi
