# shellcheck shell=sh
# Before every script. R is a prefix of every path, for tests.
R=
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export R PATH LC_ALL
umask 077
