#!/bin/sh
# source.sh OUT PACKAGER  creates OUT/compute-daemons-VERSION.tar.gz: the files of this
# tree that git tracks, as they are on disk, the modules of the build in vendor/, and the
# spec, which the program PACKAGER writes. OUT/source has the same files, unpacked: all
# packages are built from them.
#
# A tree without git that has the file VERSION, such as an unpacked archive, produces the
# same archive.
set -eu
mkdir -p "$1"
out=$(realpath "$1")
packager=$(realpath "$2")
cd "$(dirname "$0")/.."
umask 022

if [ -f VERSION ]; then
  version=$(cat VERSION)
  epoch=$(stat -c %Y VERSION)
  list() { find . \( -path ./bin -o -path ./dist -o -path "$out" \) -prune -o ! -type d -print0; }
else
  version=${VERSION:-$(git describe --tags --always --dirty)}
  epoch=$(git log -1 --format=%ct)
  list() { git ls-files -z; }
fi
case $version in "" | *[!A-Za-z0-9.+-]*)
  echo "source: the version \"$version\" contains characters other than letters, digits, dots, + and -" >&2
  exit 1
  ;;
esac
# The programs have git's version; the RPMs have the version and release in rpm's order.
# shellcheck disable=SC2046 # two words
set -- $(packaging/version.sh "$version")
name=compute-daemons-$1

# Packages of other versions would be mistaken for packages of this one.
rm -rf "$out/source"
for old in "$out"/*-[0-9]*.rpm "$out"/compute-daemons-[0-9]*.tar.gz; do
  case $old in
  *-"$1-$2".*.rpm) ;;
  *) rm -f "$old" ;;
  esac
done
mkdir -p "$out/source/$name"
list | tar -c --null --files-from=- -f - | tar -x -C "$out/source/$name" -f -
(
  cd "$out/source/$name"
  echo "$version" >VERSION
  VERSION=$version RPM_VERSION=$1 RPM_RELEASE=$2 SOURCE_DATE_EPOCH=$epoch \
    "$packager" spec packaging/compute-daemons.spec.tmpl >packaging/compute-daemons.spec
  [ -d vendor ] || GOFLAGS=-mod=mod GOWORK=off go mod vendor
  chmod -R u=rwX,go=rX .
  find . -exec touch -h -d "@$epoch" {} +
)
tar -C "$out/source" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -c "$name" | gzip -9n >"$out/$name.tar.gz"
touch -d "@$epoch" "$out/$name.tar.gz"
