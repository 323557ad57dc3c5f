#!/usr/bin/env bash
# What the README shows in "Call it": that it is what lies here (readme.py), and that it does what the README says, once
# with a certificate that can be saved and with three that fail. `readme.sh go` runs one of python, node, java, go.
set -euo pipefail
cd "$(dirname "$0")/../.."
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

save_each() {
  for certificate in scs1481110651012 scs/1 scs0000000000404 scs0000000000429; do
    echo "$ save $certificate"
    ./save "$certificate"
  done
}
export here && export -f make_python make_node make_java make_go by_hand save_each

python3 tests/clients/readme.py
declare -A needs=([python]=python3 [node]=npm [java]=grpc_java_plugin [go]=protoc)
packages=(iproute2 unzip protobuf-compiler default-jdk-headless protobuf-compiler-grpc-java-plugin libgrpc-java
  libprotobuf-java libnetty-java libperfmark-java libguava-java libjsr305-java
  libgeronimo-annotation-1.3-spec-java)
mkdir -p "$work" "$go"
install() { apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$work/apt.log" 2>&1; }
install || { apt-get update -qq && install; } || echo "not all packages could be installed"
cargo build --locked --quiet --bin scm-gateway
cargo build --locked --quiet -p scm-emulator --example scm-emulator

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
