# Sourced by the tests that run containers. Installs their tools, and configures podman without systemd and a registry.

. tests/tools.sh
unshare --mount true 2>/dev/null || { echo "namespaces are not permitted: no container was run"; exit 0; }
needed=(buildah podman crun mmdebstrap catatonit)
if ! type "${needed[@]}" >/dev/null 2>&1; then
  command -v apt-get >/dev/null || { echo "podman is missing and apt-get is not available: no container was run"; exit 0; }
  packages "${needed[@]}"
fi

# crun needs a single cgroup version, but this machine may have both. A private mount namespace has only one.
if [ -z "${IN_NAMESPACE:-}" ]; then
  exec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; IN_NAMESPACE=1 exec "$0"' "$PWD/tests/deploy/${0##*/}"
fi

. tests/deploy/calls.sh

storage=(--root "$target/image/storage" --runroot "$target/image/run" --storage-driver vfs)
buildah() { command buildah "${storage[@]}" "$@"; }
podman() { command podman "${storage[@]}" --runtime crun --cgroup-manager cgroupfs --events-backend file "$@"; }

# The pause container of a pod, which podman would pull from a registry.
if ! podman image exists localhost/pause 2>/dev/null; then
  mkdir -p "$folder/pause"
  install "$(command -v catatonit)" "$folder/pause/catatonit"
  printf 'FROM scratch\nCOPY catatonit /catatonit\nENTRYPOINT ["/catatonit", "-P"]\n' >"$folder/pause/Containerfile"
  buildah bud --quiet --isolation chroot -t localhost/pause -f "$folder/pause/Containerfile" "$folder/pause" >/dev/null
fi
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
