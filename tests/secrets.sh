#!/usr/bin/env bash
# Looks for secrets, personal data, signatures and paths with ids in everything that the suites logged, at trace, and in
# every series of their metrics.
set -euo pipefail
cd "$(dirname "$0")/.."
for suite in e2e load; do
  for file in "${CARGO_TARGET_DIR:-target}/tmp/$suite".{log,metrics}; do
    test -s "$file" || { echo "$file is missing: run the test suites first" >&2; exit 1; }
    if grep -nF -e p1anted -e EXAMPLEAK0000000000A -e EXAMPLESK/not+a=real -e Signature= -e /scm/cert/scs \
      -e HSTAEXAMPLE -e EXAMPLEtemporarySK -e EXAMPLEsecurityTOKEN -e EXAMPLEimdsTOKEN -e EXAMPLEsignatureTHAT \
      -e 13212345678 -e 9997342346@qq.com -e 'Huawei Chengdu branch' "$file"; then
      echo "$file has a secret or personal data" >&2
      exit 1
    fi
  done
done
