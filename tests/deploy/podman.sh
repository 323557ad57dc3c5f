# Sourced by the tests that run containers: what they need, and podman without systemd and a registry. Sets `target`,
# `folder` (removed at the end) and `storage`; `at_exit` adds a command to the end.

target="$PWD/${CARGO_TARGET_DIR:-target}"

command -v buildah podman crun mmdebstrap >/dev/null ||
  apt-get install -y -qq --no-install-recommends buildah podman crun mmdebstrap catatonit >/dev/null 2>&1 ||
  { echo "no buildah and podman to be had: no container was run"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "not root: no container was run"; exit 0; }

# crun wants one kind of cgroups, and this may be a machine with both: a mount namespace of our own has one.
if [ -z "${IN_NAMESPACE:-}" ]; then
  exec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; IN_NAMESPACE=1 exec "$0"' "$PWD/$0"
fi

folder="$(mktemp -d)"
ends=("rm -rf '$folder'")
at_exit() { ends=("$1" "${ends[@]}"); }
trap 'for end in "${ends[@]}"; do eval "$end" >/dev/null 2>&1 || true; done' EXIT

storage=(--root "$target/image/storage" --runroot "$target/image/run" --storage-driver vfs)
buildah() { command buildah "${storage[@]}" "$@"; }
podman() { command podman "${storage[@]}" --runtime crun --cgroup-manager cgroupfs --events-backend file "$@"; }

# Starts the emulator with these arguments; $folder/emulator has what it prints.
emulator() {
  cargo build --locked --quiet --example scm-emulator
  : >"$folder/emulator"
  "$target/debug/examples/scm-emulator" --listen 127.0.0.1:0 "$@" >"$folder/emulator" &
  at_exit "kill $!"
  until grep -q ENDPOINT "$folder/emulator"; do sleep 0.1; done
}

# Waits until the gateway with this admin address is ready.
ready() {
  for _ in $(seq 150); do curl -fsS "http://$1/readyz" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "not ready at $1" && return 1
}

# A SaveInfo at this address.
save() {
  npx --yes @bufbuild/buf curl --schema proto --protocol grpc --http2-prior-knowledge \
    --data '{"cert_id": "scs1481110651012", "info": {"domain": "www.xzz.com", "country": "CN", "applicant_name": "Tom",
      "applicant_phone": "1", "applicant_email": "a@b.c", "agree_privacy_protection": true}}' \
    "http://$1/huaweicloud.scm.v1.CertificateService/SaveInfo" | grep -q success
}
