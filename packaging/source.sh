#!/bin/sh
# source.sh OUT  makes OUT/compute-daemons-VERSION.tar.gz: what git knows of this
# tree, as it is on disk, and the modules that it is built from, in vendor/.
# OUT/source is the same, unpacked: the packages are built from nothing else.
#
# A tree without git that has the file VERSION, as the archive itself has, makes
# the same archive again.
set -eu
mkdir -p "$1"
out=$(cd "$1" && pwd)
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
  echo "source: the version \"$version\" has other characters than letters, digits, dots, + and -" >&2
  exit 1
  ;;
esac
# The spec and rpm's own names have the RPM's version, programs have git's.
# shellcheck disable=SC2046 # two words
set -- $(packaging/version.sh "$version")
name=compute-daemons-$1

rm -rf "$out/source"
# What another version has left here is not this one's.
for old in "$out"/clientmountd-[0-9]*.rpm "$out"/nnf-dm-[0-9]*.rpm "$out"/compute-daemons-[0-9]*; do
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
  sed -i "s/^\(%global upstream_version\).*/\1 $version/; s/^\(%global rpm_version\).*/\1 $1/; s/^\(%global rpm_release\).*/\1 $2/; s/^\(%global source_date\).*/\1 $epoch/" \
    packaging/compute-daemons.spec
  [ -d vendor ] || GOFLAGS=-mod=mod GOWORK=off go mod vendor
  chmod -R u=rwX,go=rX .
  find . -exec touch -h -d "@$epoch" {} +
)
tar -C "$out/source" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -c "$name" | gzip -9n >"$out/$name.tar.gz"
touch -d "@$epoch" "$out/$name.tar.gz"
