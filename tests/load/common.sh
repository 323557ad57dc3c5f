# Sourced by the measuring scripts: builds, starts and stops the gateway, the floors and the rig.
# shellcheck shell=bash disable=SC2034

target="${CARGO_TARGET_DIR:-target}"
cargo build --locked --release --quiet --bin scm-gateway
cargo build --locked --release --quiet --manifest-path tests/load/floor/Cargo.toml --target-dir "$target"
floor="$target/release/floor"
hyper_floor="$target/release/hyper_floor"
rig="$target/release/rig"
gateway="$target/release/scm-gateway"

work="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

# `start NAME COMMAND…` runs a command in the background, waits until it listens, and sets `address` and `pid`.
start() {
  local log="$work/$1"
  shift
  : >"$log"
  "$@" >>"$log" &
  pid=$!
  address=""
  for _ in $(seq 600); do
    address="$(sed -nE 's/^listening on (.*)|.*"message":"serving","listen":"([^"]*)".*/\1\2/p' "$log")"
    [ -z "$address" ] || return 0
    sleep 0.1
  done
  echo "$* does not listen" >&2
  return 1
}

# Stops the last started command, and waits until it has ended.
stop() {
  kill "$pid"
  wait "$pid" || true
}

# Starts the upstream, which is also the collector, and exports the gateway's configuration for it.
start_upstream() {
  start upstream "$rig" upstream
  upstream="http://$address"
  export HUAWEICLOUD_SDK_AK=EXAMPLEAK0000000000A HUAWEICLOUD_SDK_SK=EXAMPLESK/not+a=real
  export HUAWEICLOUD_SDK_PROJECT_ID=5a9b2cd9d2f8471d84e3ac2ac3d0a2c5 SCM_GATEWAY__UPSTREAM__ENDPOINT="$upstream"
  export SCM_GATEWAY__SERVER__LISTEN=127.0.0.1:0 SCM_GATEWAY__ADMIN__LISTEN=127.0.0.1:0
  export SCM_GATEWAY__SERVER__LAME_DUCK=0s
}

# `count calls` or `count spans` prints the number that the upstream has received so far.
count() {
  curl --silent --fail "$upstream" | sed -n "s/^$1 //p"
}
