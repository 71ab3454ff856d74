#!/bin/sh
# version.sh DESCRIBED  prints version and release of the RPMs for the output of git
# describe. rpm orders them like the commits after a tag:
#
#   v1.2.3                  1.2.3 1
#   v1.2.3-rc1              1.2.3~rc1 1        older than 1.2.3
#   v1.2.3-5-g0123abc       1.2.3 1.5.g0123abc
#   v1.2.3-5-g0123abc-dirty 1.2.3 1.5.g0123abc.dirty
#   0123abc                 0.0.0 0.g0123abc   no tag yet: not ordered
set -eu
described=$1
release=
case $described in *-dirty) release=.dirty described=${described%-dirty} ;; esac
case $described in
v[0-9]*) ;;
*)
  echo "0.0.0 0.g$described$release"
  exit
  ;;
esac
case $described in *-[0-9]*-g[0-9a-f]*)
  commit=${described##*-} described=${described%-*}
  release=.${described##*-}.$commit$release described=${described%-*}
  ;;
esac
echo "$(echo "${described#v}" | sed 's/-/~/; s/-/./g') 1$release"
