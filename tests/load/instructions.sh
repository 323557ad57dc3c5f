#!/usr/bin/env bash
# Instructions per call, the steady figure: of the floor, of the gateway, and of the gateway that exports every trace.
# Beside them stands what tests/load/instructions.tsv keeps; a twentieth more is an error. With --write the file is written
# anew. With --keep FOLDER callgrind's files stay there, for callgrind_annotate.
#
# What 3,000 calls take more than 1,000, so that the start cancels out; in user space; without the rounds of SHA-256,
# for valgrind hides the CPU's own instructions for them. One core, one stream: nothing depends on who comes first.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/load/around.sh

command -v valgrind >/dev/null || { . tests/tools.sh && packages valgrind; } ||
  { echo "no valgrind: instructions were not counted"; exit 0; }
write="" keep="$work"
while [ $# -gt 0 ]; do
  case "$1" in
    --write) write=yes ;;
    --keep) shift && keep="$1" ;;
    *) echo "usage: $0 [--write] [--keep FOLDER]" >&2 && exit 2 ;;
  esac
  shift
done

# The instructions of a run, by the functions themselves, without those that hash. A name stands where its number does
# for the first time, be it as a caller or as one that is called.
instructions() {
  awk -F '[ =]' '/^c?fn=/ { if (NF > 2) hashes[$2] = /sha2|sha256/
                            if ($1 == "fn") hashing = hashes[$2]; next }
                 /^calls=/ { getline; next }
                 /^[0-9+*-]/ && !hashing { sum += $2 }
                 END { printf "%.0f\n", sum }' "$1"
}

# `run NAME CALLS COMMAND…`: so many calls to the command under callgrind.
run() {
  local name="$1" calls="$2"
  shift 2
  start "$name" taskset -c 0 valgrind --quiet --tool=callgrind --callgrind-out-file="$keep/$name.$calls" "$@"
  "$rig" load "$address" 1 1 "$calls" >/dev/null
  stop
}

# `per_call NAME COMMAND…`: sets `cost`.
per_call() {
  local name="$1"
  shift
  for calls in 1000 3000; do
    run "$name" "$calls" "$@"
  done
  cost=$((($(instructions "$keep/$name.3000") - $(instructions "$keep/$name.1000")) / 2000))
}

around
per_call floor "$floor" "$upstream"
floor_costs="$cost"
per_call gateway "$gateway"
plain_costs="$cost"
OTEL_EXPORTER_OTLP_ENDPOINT="$upstream" per_call traced "$gateway"
traced_costs="$cost"
spans="$(count spans)"
[ "$spans" = 8000 ] || { echo "of 8000 spans $spans arrived" >&2; exit 1; }

stored() { awk -v name="$1" '$1 == name { print $2 }' tests/load/instructions.tsv 2>/dev/null || true; }
row() { awk -v n="$1" -v i="$2" -v f="$floor_costs" -v s="$(stored "$1")" 'BEGIN { printf "%-8s %12d %8.2f %12s\n", n, i, i / f, s }'; }
printf '%-8s %12s %8s %12s\n' "" instructions "/ floor" stored
row floor "$floor_costs"
row gateway "$plain_costs"
row traced "$traced_costs"
if [ -n "$write" ]; then
  printf '%s\t%s\n' floor "$floor_costs" gateway "$plain_costs" traced "$traced_costs" >tests/load/instructions.tsv
  exit
fi
# `bounded NAME COST`: no more than a twentieth above what is stored.
bounded() {
  [ "$2" -le $(($(stored "$1") * 21 / 20)) ] ||
    { echo "$1: a twentieth more than stored: find out why, or keep it with --write" >&2 && exit 1; }
}
bounded gateway "$plain_costs"
bounded traced "$traced_costs"
