# Sourced by the tests that run containers: what they need, and podman without systemd and a registry.

[ "$(id -u)" = 0 ] || { echo "not root: no container was run"; exit 0; }
needed=(buildah podman crun mmdebstrap catatonit)
if ! type "${needed[@]}" >/dev/null 2>&1; then
  command -v apt-get >/dev/null || { echo "no podman, and no apt-get to get it with: no container was run"; exit 0; }
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${needed[@]}" >/dev/null
fi

# crun wants one kind of cgroups, and this may be a machine with both: a mount namespace of our own has one.
if [ -z "${IN_NAMESPACE:-}" ]; then
  exec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; IN_NAMESPACE=1 exec "$0"' "$PWD/tests/deploy/${0##*/}"
fi

. tests/deploy/calls.sh

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
