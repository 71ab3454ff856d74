#!/bin/sh
# payload.sh install ROOT    lays out below ROOT what the packages hold
# payload.sh files PACKAGE   the %files of PACKAGE for rpmbuild
# payload.sh nfpm PACKAGE    the contents of PACKAGE for nfpm, from the folder root/
#
# All of it comes from the list in the file payload. A source that is missing is
# an error that names it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$here/..

# lines PACKAGE  prints the lines of the list, of all packages with "".
lines() {
  awk -v package="$1" '/^#/ || NF == 0 { next }
    NF != 6 { print "payload: line " NR " does not have 6 columns: " $0 > "/dev/stderr"; exit 1 }
    package == "" || $1 == package' "$here/payload"
}

# entries PROGRAM  prints of a journal catalogue what is for PROGRAM. What both
# daemons log is in the catalogue of both packages, each of which may be alone.
entries() {
  awk -v page="Documentation: man:$1(8)" 'function flush() { if (entry != "" && index(entry, page "\n")) printf "%s", entry; entry = "" }
    /^-- [0-9a-f]+/ { flush(); begun = 1 }
    !begun { print; next }
    { entry = entry $0 "\n" }
    END { flush() }'
}

install_all() { # ROOT
  bad=
  while read -r package mode _ kind path source; do
    if [ "$kind" != dir ] && [ ! -f "$tree/$source" ]; then
      echo "payload: $source is missing, which is to be installed as $path" >&2
      bad=1
      continue
    fi
    case $kind in
    dir) install -d -m "$mode" "$1$path" ;;
    man)
      install -d -m 0755 "$(dirname "$1$path")"
      gzip -9n <"$tree/$source" >"$1$path"
      chmod "$mode" "$1$path"
      ;;
    catalog)
      install -d -m 0755 "$(dirname "$1$path")"
      entries "$package" <"$tree/$source" >"$1$path"
      chmod "$mode" "$1$path"
      ;;
    file | config | doc | license) install -D -m "$mode" "$tree/$source" "$1$path" ;;
    *)
      echo "payload: $path is of the unknown kind $kind" >&2
      bad=1
      ;;
    esac
  done
  [ -z "$bad" ]
}

files() {
  while read -r _ mode owner kind path _; do
    case $kind in
    dir) flag='%dir ' ;;
    config) flag='%config(noreplace) ' ;;
    doc | man) flag='%doc ' ;;
    license) flag='%license ' ;;
    *) flag= ;;
    esac
    echo "%attr($mode,${owner%:*},${owner#*:}) $flag$path"
  done
}

contents() {
  echo 'contents:'
  while read -r _ mode owner kind path _; do
    src="src: root$path, " type=
    case $kind in
    dir) src='' type='type: dir, ' ;;
    config) type='type: config|noreplace, ' ;;
    doc | man) type='type: doc, ' ;;
    license) type='type: license, ' ;;
    esac
    echo "  - {${src}dst: $path, ${type}file_info: {mode: $mode, owner: ${owner%:*}, group: ${owner#*:}}}"
  done
}

umask 022
case ${1-} in
install)
  list=$(lines "")
  echo "$list" | install_all "$2"
  ;;
files)
  list=$(lines "$2")
  echo "$list" | files
  ;;
nfpm)
  list=$(lines "$2")
  echo "$list" | contents
  ;;
*)
  echo "usage: payload.sh install ROOT | files PACKAGE | nfpm PACKAGE" >&2
  exit 2
  ;;
esac
