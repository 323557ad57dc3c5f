# Sourced by the scripts of tests/ to install their tools.

# `venv NAME PACKAGE…` creates a Python environment with these packages in target/tools/NAME, unless it has been created
# with the same packages, and sets `tools` to that folder.
venv() {
  tools="$PWD/target/tools/$1"
  shift
  [ "$*" != "$(cat "$tools/installed" 2>/dev/null)" ] || return 0
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "$@"
  echo "$*" >"$tools/installed"
}

# `packages NAME…` installs Debian packages. It fails if one is not available.
packages() {
  local install=(apt-get install -y -qq --no-install-recommends "$@")
  "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
}

# The Debian packages of grpc-java and protoc. libprotobuf-dev has google/protobuf/descriptor.proto.
grpc_java=(protobuf-compiler libprotobuf-dev default-jdk-headless protobuf-compiler-grpc-java-plugin libgrpc-java libprotobuf-java
  libnetty-java libperfmark-java libguava-java libjsr305-java libgeronimo-annotation-1.3-spec-java)
