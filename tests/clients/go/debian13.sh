#!/usr/bin/env bash
# Unpacks Go and grpc-go of Debian 13 to ./debian13, without installing them. Those of Debian 12 are too old: grpc.NewClient
# needs grpc-go 1.63.
set -euo pipefail
[ ! -d debian13 ] || exit 0
mkdir -p apt/lists/partial apt/archives/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >apt/sources.list
get() {
  apt-get -qq -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::Cache=$folder" \
    -o "Dir::State::Lists=$folder/lists" -o APT::Sandbox::User=root "$@"
}
folder="$PWD/apt"
get update
(cd apt && get download golang-1.24-{go,src} golang-google-{grpc,protobuf,genproto}-dev \
  golang-golang-x-{net,sys,text}-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go protoc-gen-go-grpc)
for package in apt/*.deb; do dpkg -x "$package" unpacked; done
mv unpacked debian13
rm -r apt
