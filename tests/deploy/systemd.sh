#!/usr/bin/env bash
# Tests the systemd unit: `systemd-analyze` verify and security, and `--check` of the configuration in its comment.
# systemd_start.sh starts the unit.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
unit=deploy/systemd/scm-gateway.service

if ! command -v systemd-analyze >/dev/null; then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || { echo "systemd-analyze is not available: the unit was not checked"; exit 0; }
  packages systemd
fi
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# `verify` needs an existing binary.
cargo build --locked --quiet --bin scm-gateway
binary="$(realpath "${CARGO_TARGET_DIR:-target}")/debug/scm-gateway"
sed "s|/usr/local/bin/scm-gateway|$binary|" "$unit" >"$folder/scm-gateway.service"
systemd-analyze verify "$folder/scm-gateway.service"
systemd-analyze security --offline=true --threshold=20 "$folder/scm-gateway.service" | tail -n 1

# The configuration in the comment of the unit, with a temporary folder for the credentials.
umask 077
printf made-up | tee "$folder/ak" >"$folder/sk"
sed -n 's/^#     //p' "$unit" | sed "s|/run/credentials/scm-gateway.service|$folder|; s|…|0123456789abcdef|" >"$folder/config.toml"
env -i "$binary" --config "$folder/config.toml" --check | tail -n 1
