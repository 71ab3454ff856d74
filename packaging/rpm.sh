#!/bin/sh
# rpm.sh OUT NFPM ARCH...  makes the binary RPMs for the architectures ARCH (as Go
# calls them) in OUT, with the program NFPM, from the sources in OUT/source that
# source.sh has made. The same sources give the same bytes.
set -eu
out=$(cd "$1" && pwd)
nfpm=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
shift 2
cd "$out"/source/compute-daemons-*
version=$(cat VERSION)
# shellcheck disable=SC2046 # two words
set -- $(packaging/version.sh "$version") "$@"
export RPM_VERSION="$1" RPM_RELEASE="$2"
SOURCE_DATE_EPOCH=$(stat -c %Y VERSION)
export SOURCE_DATE_EPOCH
shift 2
# What is built and how must not depend on the environment.
export GOOS=linux GOFLAGS=-mod=vendor GOPROXY=off GOWORK=off GOTOOLCHAIN=local
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0
umask 022

for GOARCH in "$@"; do
  export GOARCH
  rm -rf bin
  make -s build-daemon VERSION="$version"
  work=$out/source/$GOARCH
  rm -rf "$work"
  mkdir -p "$work"
  packaging/payload.sh install "$work/root"
  find "$work/root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  ln -s "$PWD/packaging" "$work/packaging"
  for package in clientmountd nnf-dm nnf-deploy; do
    { cat "packaging/nfpm/$package.yaml"; packaging/payload.sh nfpm "$package"; } >"$work/$package.yaml"
    (cd "$work" && "$nfpm" package --packager rpm --config "$package.yaml" --target "$out/")
  done
done
