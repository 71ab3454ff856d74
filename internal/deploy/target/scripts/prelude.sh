# shellcheck shell=sh
# Start of every script. R is the prefix of all paths; it is not empty in tests.
R=
PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export R PATH LC_ALL
umask 077
