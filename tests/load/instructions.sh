#!/usr/bin/env bash
# Counts the instructions per call of both floors, of the gateway, of the gateway that exports every trace, and of a
# ListCertificates with 50 certificates. More than 5 % above tests/load/instructions.tsv is an error. --write updates
# that file. --keep FOLDER keeps callgrind's files there, for callgrind_annotate.
#
# The result is the difference between 3,000 and 1,000 calls, which excludes the start. It covers user space only,
# without the rounds of SHA-256, because valgrind hides the CPU's own instructions for them. One core and one stream make
# the order of events deterministic.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/load/common.sh

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

# `instructions FILE` sums the self cost of all functions except the hashing ones. callgrind writes a function's name
# only where its number occurs first, as a caller or a callee.
instructions() {
  awk -F '[ =]' '/^c?fn=/ { if (NF > 2) hashes[$2] = /sha2|sha256/
                            if ($1 == "fn") hashing = hashes[$2]; next }
                 /^calls=/ { getline; next }
                 /^[0-9+*-]/ && !hashing { sum += $2 }
                 END { printf "%.0f\n", sum }' "$1"
}

# `run NAME CALLS COMMAND…` runs the command under callgrind and makes calls of $rpc.
run() {
  local name="$1" calls="$2"
  shift 2
  start "$name" taskset -c 0 valgrind --quiet --tool=callgrind --callgrind-out-file="$keep/$name.$calls" "$@"
  "$rig" load "$address" 1 1 "$calls" "$rpc" >/dev/null
  stop
}

# `per_call NAME COMMAND…` sets `cost` to the instructions per call.
per_call() {
  local name="$1"
  shift
  for calls in 1000 3000; do
    run "$name" "$calls" "$@"
  done
  cost=$((($(instructions "$keep/$name.3000") - $(instructions "$keep/$name.1000")) / 2000))
}

start_upstream
rpc=save
per_call floor "$floor" "$upstream"
floor_costs="$cost"
per_call hyper "$hyper_floor" "$upstream"
hyper_costs="$cost"
per_call gateway "$gateway"
plain_costs="$cost"
OTEL_EXPORTER_OTLP_ENDPOINT="$upstream" per_call traced "$gateway"
traced_costs="$cost"
spans="$(count spans)"
[ "$spans" = 8000 ] || { echo "$spans of 8000 spans arrived" >&2; exit 1; }

rpc=list
per_call list "$gateway"
list_costs="$cost"

stored() { awk -v name="$1" '$1 == name { print $2 }' tests/load/instructions.tsv 2>/dev/null || true; }
row() {
  awk -v n="$1" -v i="$2" -v f="$floor_costs" -v h="$hyper_costs" -v s="$(stored "$1")" \
    'BEGIN { printf "%-8s %12d %8.2f %8.2f %12s\n", n, i, i / f, i / h, s }'
}
printf '%-8s %12s %8s %8s %12s\n' "" instructions "/ floor" "/ hyper" stored
row floor "$floor_costs"
row hyper "$hyper_costs"
row gateway "$plain_costs"
row traced "$traced_costs"
printf '%-8s %12d %8s %8s %12s\n' list "$list_costs" "" "" "$(stored list)"
if [ -n "$write" ]; then
  printf '%s\t%s\n' floor "$floor_costs" hyper "$hyper_costs" gateway "$plain_costs" traced "$traced_costs" \
    list "$list_costs" >tests/load/instructions.tsv
  exit
fi
# `check_increase NAME COST` fails if the cost is more than 5 % above the stored one.
check_increase() {
  [ "$2" -le $(($(stored "$1") * 21 / 20)) ] ||
    { echo "$1: over 5 % more instructions than stored: find the cause, or store them with --write" >&2 && exit 1; }
}
check_increase gateway "$plain_costs"
check_increase traced "$traced_costs"
check_increase list "$list_costs"
