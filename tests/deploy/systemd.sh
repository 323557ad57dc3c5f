#!/usr/bin/env bash
# The systemd unit: it is well-formed, it is closed to what the gateway does not need, and what it tells the operator to
# write passes the gateway's own check. systemd_start.sh starts it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
unit=deploy/systemd/scm-gateway.service

if ! command -v systemd-analyze >/dev/null; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo "no systemd-analyze to be had: the unit was not looked at"; exit 0; }
  packages systemd
fi
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# `verify` wants the program to be there.
cargo build --locked --quiet --bin scm-gateway
binary="$(realpath "${CARGO_TARGET_DIR:-target}")/debug/scm-gateway"
sed "s|/usr/local/bin/scm-gateway|$binary|" "$unit" >"$folder/scm-gateway.service"
systemd-analyze verify "$folder/scm-gateway.service"
systemd-analyze security --offline=true --threshold=20 "$folder/scm-gateway.service" | tail -n 1

# The lines of the comment, with a folder of ours for systemd's.
umask 077
printf made-up | tee "$folder/ak" >"$folder/sk"
sed -n 's/^#     //p' "$unit" | sed "s|/run/credentials/scm-gateway.service|$folder|; s|…|0123456789abcdef|" >"$folder/config.toml"
env -i "$binary" --config "$folder/config.toml" --check | tail -n 1
