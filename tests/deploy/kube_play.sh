#!/usr/bin/env bash
# Tests the plain manifest: podman starts its Deployment with the image of image.sh, and a SaveInfo succeeds. podman is not a
# cluster, so ports, probes, rollout, Service and NetworkPolicy are not tested.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/podman.sh

venv kube_play PyYAML==6.0.3
podman image exists scm-gateway || { echo "no image: run tests/deploy/image.sh first"; exit 1; }
podman tag scm-gateway "localhost/scm-gateway:$(sed -n 's/^appVersion: //p' deploy/helm/scm-gateway/Chart.yaml)"
printf '[engine]\ninfra_image = "localhost/pause"\n[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n' >"$folder/containers.conf"
export CONTAINERS_CONF="$folder/containers.conf"

# podman does not decode the data of a Secret. These credentials are valid base64, so they work with and without decoding.
access_key=MADEUPACCESSKEY00001
secret_key=MadeUpSecretKey000000000000000000000002A
emulator --key "$access_key:$secret_key"
"$tools/bin/python" tests/deploy/for_podman.py deploy/kubernetes/scm-gateway.yaml "$access_key" "$secret_key" \
  "$(printed SCM_GATEWAY__UPSTREAM__ENDPOINT)" >"$folder/pod.yaml"

at_exit "podman play kube --down '$folder/pod.yaml'"
podman play kube --network host "$folder/pod.yaml" >/dev/null
ready 127.0.0.1:9464
serving 127.0.0.1:50051
save 127.0.0.1:50051
container="$(podman ps --format '{{.ID}} {{.Image}}' | sed -n 's| localhost/scm-gateway:.*||p')"
pid="$(podman inspect --format '{{.State.Pid}}' "$container")"
grep -q $'^Uid:\t65532\t' "/proc/$pid/status"
grep -q $'^CapEff:\t0000000000000000$' "/proc/$pid/status"
grep -q ' / .*\bro\b' "/proc/$pid/mounts"
podman stop --time 30 "$container" >/dev/null 2>&1
[ "$(podman inspect --format '{{.State.ExitCode}}' "$container")" = 0 ]
echo "The pod of the manifest starts, is read-only and unprivileged, is SERVING, saves, and exits with 0."
