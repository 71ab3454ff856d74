# shellcheck shell=sh
# Functions for all scripts. An answer consists of lines; the fields of a line are separated
# by tabs. An error is one line: "error", the cause, and a hint.
#
# nnf-deploy sends all scripts with each connection, so the words of requests, answers and
# the manifest may change between versions. The names and contents of the files below
# /var/lib/nnf-deploy that outlive a run must not change: later versions read them (lock,
# pending, forget, packages/, and in an interrupted stage/ manifest, moved and made).
# shellcheck disable=SC2034  # used by the scripts
D=$R/var/lib/nnf-deploy
exec 3<&0 </dev/null # no command may read the request by accident

fail() {
  printf 'error\t%s\t%s\n' "$(printf %s "$1" | tr '\n\t' '  ')" "${2-}"
  exit 1
}

# foreign PATH: whether it is a symbolic link of another user than root, who could write to its
# directory.
foreign() { [ -L "$1" ] && [ "$(stat -c %u "$1")" != "$(id -u)" ]; }

# forget RUN: a run that has removed everything leaves only its result, until nnf-deploy
# confirms that it has received the result. The state is removed only if it belongs to this
# run: another run may have replaced it. The caller holds the lock.
forget() {
  if [ -n "$1" ] && [ -f "$D/forget" ] && [ "$(cat "$D/forget")" = "$1" ]; then
    printf 'confirm\n'
    IFS= read -r word <&3
    if [ "$word" = "confirmed $1" ]; then
      # The file "forget" last: if this is killed, a later run completes it.
      for path in "$D"/*; do [ "$path" = "$D/forget" ] || rm -rf "$path"; done
      rm -rf "$D"
    fi
  fi
}

[ "$(id -u)" = 0 ] || fail 'the login is not root' 'use --user root, or --sudo'
