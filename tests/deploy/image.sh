#!/usr/bin/env bash
# The image: really built from deploy/Dockerfile and really run. There is no image registry here, so both bases are local
# stand-ins of the same names: the build image borrows the machine's /usr and Rust, the distroless one is made of Debian's
# packages. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/podman.sh

build="$(sed -n 's/^ARG BUILD=//p' deploy/Dockerfile)"
base="$(sed -n 's/^ARG BASE=//p' deploy/Dockerfile)"

cargo="${CARGO_HOME:-$HOME/.cargo}"
rustup="${RUSTUP_HOME:-$HOME/.rustup}"

# The stand-ins.
if ! buildah inspect --type image "$build" >/dev/null 2>&1; then
  mkdir -p "$folder/build/usr" "$folder/build/tmp"
  for link in bin lib lib64 sbin; do ln -s "usr/$link" "$folder/build/$link"; done
  printf 'FROM scratch\nCOPY . /\nENV PATH=%s HOME=%s CARGO_HOME=%s RUSTUP_HOME=%s\n' \
    "$cargo/bin:/usr/bin:/bin" "$HOME" "$cargo" "$rustup" >"$folder/build.containerfile"
  buildah bud --quiet --isolation chroot -t "$build" -f "$folder/build.containerfile" "$folder/build" >/dev/null
fi
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  mmdebstrap --quiet --variant=extract --include=libc6,libgcc-s1,ca-certificates,tzdata,base-files,netbase \
    --extract-hook='mkdir -p "$1/etc/ssl/certs" && cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"' \
    bookworm "$folder/base"
  rm -rf "$folder/base"/{bin/*sh,usr/bin/*,usr/sbin/*,var/lib/dpkg,var/cache,dev}
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$folder/base/etc/passwd"
  printf 'FROM scratch\nCOPY . /\nUSER 65532\n' >"$folder/base.containerfile"
  buildah bud --quiet --isolation chroot -t "$base" -f "$folder/base.containerfile" "$folder/base" >/dev/null
fi

# The image, as anybody builds it but for what the stand-in borrows.
mkdir -p "$target/image/target"
buildah bud --quiet --isolation chroot --format docker -t scm-gateway \
  --volume /usr:/usr:ro --volume /etc:/etc:ro --volume "$cargo:$cargo" --volume "$rustup:$rustup" \
  --volume "$target/image/target:/src/target" \
  --build-arg "REVISION=$(git rev-parse HEAD)" -f deploy/Dockerfile . >/dev/null
echo "built: $(podman image inspect --format '{{.Size}}' scm-gateway) bytes"

# What is in it.
mounted="$(podman image mount scm-gateway)"
[ -z "$(find "$mounted" -xdev -type f \( -perm -4000 -o -perm -2000 \))" ] || { echo "setuid files"; exit 1; }
for shell in sh bash dash busybox; do
  [ ! -e "$mounted/bin/$shell" ] && [ ! -e "$mounted/usr/bin/$shell" ] || { echo "a shell: $shell"; exit 1; }
done
grep -q 'BEGIN CERTIFICATE' "$mounted/etc/ssl/certs/ca-certificates.crt"
readelf -S "$mounted/usr/local/bin/scm-gateway" | grep -q '\.dep-v0' # the list of dependencies
podman image unmount scm-gateway >/dev/null
[ "$(podman image inspect --format '{{.Config.User}}' scm-gateway)" = 65532:65532 ]
[ "$(podman image inspect --format '{{index .Config.Labels "org.opencontainers.image.licenses"}}' scm-gateway)" = Apache-2.0 ]

# How it runs: read-only without a writable /tmp, no capability, no new privileges.
emulator
sed -n "s/^export \([^=]*\)='\(.*\)'$/\1=\2/p" "$folder/emulator" >"$folder/environment"
container="$(podman run --detach --network host --read-only --read-only-tmpfs=false --cap-drop all \
  --security-opt no-new-privileges "${limits[@]}" --health-interval=disable \
  --env-file "$folder/environment" --env SCM_GATEWAY__SERVER__LISTEN=127.0.0.1:50061 --env SCM_GATEWAY__SERVER__LAME_DUCK=0s \
  --env SCM_GATEWAY__ADMIN__LISTEN=127.0.0.1:9474 scm-gateway)"
at_exit "podman rm --force $container"
ready 127.0.0.1:9474
pid="$(podman inspect --format '{{.State.Pid}}' "$container")"
grep -q $'^Uid:\t65532\t65532\t65532\t65532$' "/proc/$pid/status"
grep -q $'^CapEff:\t0000000000000000$' "/proc/$pid/status"
grep -q $'^NoNewPrivs:\t1$' "/proc/$pid/status"
podman healthcheck run "$container" >/dev/null
save 127.0.0.1:50061
podman stop --time 25 "$container" >/dev/null 2>&1
[ "$(podman inspect --format '{{.State.ExitCode}}' "$container")" = 0 ]
echo "uid, capabilities, no shell, no setuid, CA roots, read-only, health, a SaveInfo, SIGTERM: hold."
