# Sourced by the tests that start the gateway in a container or under systemd. Provides an emulated SCM, calls of the
# gateway, and the commands of deploy/README.md. Sets `target` and `folder`, which is removed on exit; `at_exit` adds a
# command that runs on exit.

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
folder="$(mktemp -d)"
ends=("rm -rf '$folder'")
at_exit() { ends=("$1" "${ends[@]}"); }
trap 'for end in "${ends[@]}"; do eval "$end" >/dev/null 2>&1 || true; done' EXIT

# Prints the code blocks of a language (sh, toml) below a heading of deploy/README.md.
commands_of() {
  awk -v heading="## $1" -v fence="\`\`\`${2:-sh}" '
    /^## / { here = $0 == heading; found += here }
    /^```/ { inside = here && $0 == fence; next }
    inside
    END { exit !found }' deploy/README.md
}

# Starts the emulator with these arguments; `printed` returns a variable that it prints for the gateway.
emulator() {
  cargo build --locked --quiet --example scm-emulator
  : >"$folder/emulator"
  "$target/debug/examples/scm-emulator" --listen 127.0.0.1:0 "$@" >"$folder/emulator" &
  at_exit "kill $!"
  until grep -q ENDPOINT "$folder/emulator"; do sleep 0.1; done
}
printed() { sed -n "s/^export $1='\(.*\)'$/\1/p" "$folder/emulator"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Waits until the gateway with this admin address is ready.
ready() {
  for _ in $(seq 150); do curl -fsS "http://$1/readyz" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "not ready at $1" && return 1
}

# Calls a method at this address with a message, and prints the reply.
ask() {
  npx --yes @bufbuild/buf@1.75.0 curl --reflect --protocol grpc --http2-prior-knowledge --data "$3" "http://$1/$2"
}

# Checks that gRPC health at this address reports SERVING.
serving() { ask "$1" grpc.health.v1.Health/Check '{}' | grep '"SERVING"' >/dev/null; }

# Calls SaveInfo at this address.
save() {
  ask "$1" huaweicloud.scm.v1.CertificateService/SaveInfo \
    '{"cert_id": "scs1481110651012", "info": {"domain": "www.xzz.com", "country": "CN", "applicant_name": "Tom",
      "applicant_phone": "1", "applicant_email": "a@b.c", "agree_privacy_protection": true}}' |
    grep success >/dev/null
}
