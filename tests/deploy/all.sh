#!/usr/bin/env bash
# Runs the tests that the table of deploy/README.md names, and fails if a file of deploy/ has no row.
set -euo pipefail
cd "$(dirname "$0")/../.."

git ls-files deploy | grep -v '^deploy/README.md$' | while read -r file; do
  covered=""
  while read -r row; do
    case "${file#deploy/}" in "$row"*) covered=yes ;; esac
  done < <(sed -n 's/^| `\([^`]*\)`.*/\1/p' deploy/README.md)
  [ -n "$covered" ] || { echo "$file has no row in deploy/README.md"; exit 1; }
done

# Runs each command once, in the order of the table.
sed -n '/^| `/p' deploy/README.md | grep -o '`\(tests/deploy/[a-z_]*\.sh\|cargo test [a-z:]*\)`' | tr -d '`' | awk '!seen[$0]++' |
  while read -r command; do
    printf '\n-- %s\n' "$command"
    $command </dev/null
  done
