#!/usr/bin/env bash
# What the README shows in "Call it": that it is what lies here (readme.py), and that it does what the README says, once
# with a certificate that can be saved and with three that fail. `readme.sh go` runs one of python, node, java, go.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tools.sh
here="$PWD/tests/clients" work="$PWD/target/readme" target="$(realpath "${CARGO_TARGET_DIR:-target}")"
export PROTO="$PWD/proto" go="$PWD/target/tools/go"

# Each of these makes ./save, in a folder of its own.
make_python() {
  # README: python
  python3 -m venv .venv && .venv/bin/pip install grpcio==1.85.1 grpcio-tools==1.85.1 grpcio-status==1.85.1
  .venv/bin/python -m grpc_tools.protoc -I "$PROTO" --python_out=. --grpc_python_out=. \
    huaweicloud/scm/v1/certificate_service.proto
  # README: end
  printf '#!/bin/sh\nPYTHONPATH=. exec .venv/bin/python %s/python/save.py "$1"\n' "$here" >save
}

make_node() {
  echo '{"private": true}' >package.json
  # README: node
  npm install @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 google-proto-files@5.0.3
  # README: end
  printf '#!/bin/sh\nNODE_PATH=node_modules exec node %s/node/save.js "$1"\n' "$here" >save
}

make_java() {
  local jars="$(printf '/usr/share/java/%s.jar:' grpc-{api,context,core,netty,protobuf,protobuf-lite,stub} protobuf{,-util} \
    netty-{buffer,codec,codec-http,codec-http2,common,handler,resolver,transport} guava perfmark-api jsr305 \
    geronimo-annotation-1.3-spec)"
  mkdir -p src
  # README: java
  protoc -I "$PROTO" --java_out=src --plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin --grpc-java_out=src \
    huaweicloud/scm/v1/certificate_service.proto
  # README: end
  # What io.grpc:grpc-protobuf brings, and Debian's does not.
  pip download --quiet --disable-pip-version-check --no-deps googleapis-common-protos==1.76.0
  unzip -qo googleapis_common_protos-*.whl 'google/*.proto'
  protoc -I . --java_out=src google/api/{annotations,http}.proto google/rpc/{status,error_details}.proto
  javac -nowarn -cp "$jars" -d classes $(find src -name '*.java') "$here/java/Save.java"
  printf '#!/bin/sh\nexec java -cp classes:%s Save "$1"\n' "$jars" >save
}

make_go() {
  (cd "$go" && "$here/go/debian13.sh")
  local debian="$go/debian13/usr" module="$PWD/path/src/example.org/client"
  export PATH="$debian/lib/go-1.24/bin:$debian/bin:$PATH" GO111MODULE=off CGO_ENABLED=0 GOCACHE="$go/cache"
  export GOPATH="$PWD/path:$debian/share/gocode"
  mkdir -p "$module" && pushd "$module"
  # README: go
  F=huaweicloud/scm/v1/certificate_service.proto
  M=M$F=example.org/client/scm
  protoc -I "$PROTO" --go_out=. --go_opt=module=example.org/client,$M \
    --go-grpc_out=. --go-grpc_opt=module=example.org/client,$M $F
  # README: end
  popd
  go build -o save "$here/go/save.go"
}

# By hand needs no more than npm, and saves one certificate only.
by_hand() {
  # README: by hand
  npx --yes @bufbuild/buf@1.75.0 curl --protocol grpc --http2-prior-knowledge --reflect \
    -d '{"cert_id": "scs1481110651012", "info": {"domain": "www.xzz.com", "country": "CN",
         "applicant_name": "Tom", "applicant_phone": "13212345678", "applicant_email": "9997342346@qq.com",
         "agree_privacy_protection": true}}' \
    http://127.0.0.1:50051/huaweicloud.scm.v1.CertificateService/SaveInfo
  # README: end
}

# A server certificate, a client's, and one of an authority that the gateway does not know.
make_certificates() {
  for name in ca stranger-ca; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout $name.key -out $name.crt
  done
  issue() { # NAME AUTHORITY SAN
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -out "$1.crt" \
      -extfile <(echo "subjectAltName=$3")
  }
  issue server ca DNS:localhost
  issue client ca URI:spiffe://example.org/ns/web/sa/orders
  issue stranger stranger-ca URI:spiffe://example.org/ns/web/sa/orders
}

over_tls() {
  python() { PYTHONPATH=../python ../python/.venv/bin/python "$here/python/save_tls.py"; }
  by_hand_tls() {
    # README: by hand, tls
    npx --yes @bufbuild/buf@1.75.0 curl --protocol grpc --reflect --cacert ca.crt --cert client.crt --key client.key \
      -d '{"cert_id": "scs1481110651012"}' \
      https://localhost:50051/huaweicloud.scm.v1.CertificateService/ReadInfo
    # README: end
  }
  python
  # What it answers depends on what was saved just before.
  ! command -v npx >/dev/null || by_hand_tls | grep -o '"domain": "www.xzz.com"'
  cp stranger.crt client.crt && cp stranger.key client.key
  python
}

save_each() {
  for certificate in scs1481110651012 scs/1 scs0000000000404 scs0000000000429; do
    echo "$ save $certificate"
    ./save "$certificate"
  done
}
export here && export -f make_python make_node make_java make_go make_certificates by_hand over_tls save_each

python3 tests/clients/readme.py
declare -A needs=([python]=python3 [node]=npm [java]=grpc_java_plugin [go]=protoc)
mkdir -p "$work" "$go"
packages iproute2 unzip "${grpc_java[@]}" || echo "not all packages could be installed"
cargo build --locked --quiet --bin scm-gateway --example scm-emulator

languages=("$@")
[ $# -gt 0 ] || languages=(python node java go)
for language in "${languages[@]}"; do
  if ! command -v "${needs[$language]}" >/dev/null; then
    echo "no ${needs[$language]}: the README's $language was not run"
    [ -z "${CI:-}" ] || exit 1 # there it can be had
    continue
  fi
  start=$SECONDS
  mkdir -p "$work/$language"
  cd "$work/$language"
  bash -euo pipefail -c "make_$language; chmod +x save" >build.log 2>&1 || { cat build.log; exit 1; }
  "$here/gateway.sh" "$target" bash -c save_each 2>errors.log | sed 's/ *$//' >printed.txt || true # diff tells
  diff "$here/readme.txt" printed.txt || { cat errors.log; exit 1; }
  echo "$language: does what the README says ($((SECONDS - start)) s)"
done

if command -v npx >/dev/null; then
  npx --yes @bufbuild/buf@1.75.0 --version >/dev/null # in the namespace there is no registry
  mkdir -p "$work/hand" && cd "$work/hand"
  npm_config_offline=true timeout 60 "$here/gateway.sh" "$target" bash -c by_hand | grep -q '"requestInfo": "success"'
  echo "by hand: does what the README says"
else
  echo "no npx: the call by hand was not made"
fi

if [ -x "$work/python/.venv/bin/python" ]; then
  rm -rf "$work/tls" && mkdir "$work/tls" && cd "$work/tls"
  bash -euo pipefail -c make_certificates >build.log 2>&1 || { cat build.log; exit 1; }
  printf '%s\n' success '"domain": "www.xzz.com"' UNAVAILABLE >expected.txt
  command -v npx >/dev/null || sed -i /domain/d expected.txt
  export SCM_GATEWAY__SERVER__TLS__CERT_FILE=server.crt SCM_GATEWAY__SERVER__TLS__KEY_FILE=server.key \
    SCM_GATEWAY__SERVER__TLS__CLIENT_CA_FILE=ca.crt SCM_GATEWAY__CALLERS__0__PROJECTS='*' \
    SCM_GATEWAY__CALLERS__0__IDENTITY=spiffe://example.org/ns/web/sa/orders \
    SCM_GATEWAY__CALLERS__0__METHODS=SaveInfo,ReadInfo
  npm_config_offline=true timeout 60 "$here/gateway.sh" "$target" bash -c over_tls >printed.txt 2>errors.log || true # diff tells
  diff expected.txt printed.txt || { cat errors.log; exit 1; }
  echo "TLS: does what the README says"
fi
