#!/bin/sh
# rpm.sh OUT PACKAGER ARCH...  builds the binary RPMs for the architectures ARCH (Go's
# names) in OUT with the program PACKAGER, from the sources that source.sh has put in
# OUT/source. The same sources give the same bytes. OUT/source/ARCH/root then has what
# the packages install.
set -eu
out=$(realpath "$1")
packager=$(realpath "$2")
shift 2
cd "$out"/source/compute-daemons-*
version=$(cat VERSION)
# shellcheck disable=SC2046 # two words
set -- $(packaging/version.sh "$version") "$@"
export RPM_VERSION="$1" RPM_RELEASE="$2"
SOURCE_DATE_EPOCH=$(stat -c %Y VERSION)
export SOURCE_DATE_EPOCH
shift 2
# The build must not depend on the environment.
export GOOS=linux GOFLAGS=-mod=vendor GOPROXY=off GOWORK=off GOTOOLCHAIN=local
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0

for GOARCH in "$@"; do
  export GOARCH
  root=$out/source/$GOARCH/root
  rm -rf bin "$root"
  make -s build-daemon VERSION="$version"
  "$packager" root "$root"
  "$packager" rpm --root "$root" "$out"
done
