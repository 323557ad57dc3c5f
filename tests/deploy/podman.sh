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

# The smallest container there is, also the one that holds a pod together, which podman would fetch. A machine that cannot
# run it (another kind of cgroups, say) can run none.
if ! podman image exists localhost/pause 2>/dev/null; then
  mkdir -p "$folder/pause"
  install "$(command -v catatonit)" "$folder/pause/catatonit"
  printf 'FROM scratch\nCOPY catatonit /catatonit\nENTRYPOINT ["/catatonit", "-P"]\n' >"$folder/pause/Containerfile"
  buildah bud --quiet --isolation chroot -t localhost/pause -f "$folder/pause/Containerfile" "$folder/pause" >/dev/null
fi
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
podman run --rm --network host "${limits[@]}" --entrypoint /catatonit localhost/pause --version >/dev/null 2>&1 ||
  { echo "containers do not run on this machine: none was tested"; exit 0; }

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
