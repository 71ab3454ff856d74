# shellcheck shell=sh
# Common parts of the scripts. An answer consists of lines of fields that are separated by
# tabs. An error is one line: "error", the cause, and a hint.
# shellcheck disable=SC2034  # the scripts use it
D=$R/var/lib/nnf-deploy
exec 3<&0 </dev/null # only read may consume the request

fail() {
  printf 'error\t%s\t%s\n' "$(printf %s "$1" | tr '\n\t' '  ')" "${2-}"
  exit 1
}

# forget RUN: a run that has removed everything leaves only its answer, until nnf-deploy
# confirms that the answer has arrived. Only the state of this run is removed: another
# run may have put its own there since. The caller holds the lock.
forget() {
  if [ -n "$1" ] && [ -f "$D/forget" ] && [ "$(cat "$D/forget")" = "$1" ]; then
    printf 'heard\n'
    IFS= read -r word <&3
    [ "$word" != "heard $1" ] || rm -rf "$D"
  fi
}

[ "$(id -u)" = 0 ] || fail 'the login is not root' 'use --user root, or --sudo'
