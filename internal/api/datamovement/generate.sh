#!/bin/bash
# Generates the Go code of the .proto files in this directory and below it, with the
# generators that internal/tools/go.mod pins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(
	cd ../tools
	CGO_ENABLED=0 "${GO:-go}" build -buildvcs=false -o "$work/" \
		./protogen google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
)
"$work/protogen" "$root" "$work/protoc-gen-go,$work/protoc-gen-go-grpc" \
	datamovement/datamovement.proto datamovement/v2/datamovement.proto
