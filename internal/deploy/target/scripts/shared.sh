# shellcheck shell=sh
# What the scripts have in common. Their answer is lines of words with tabs
# between them; an error is one as well: what happened, and what to do.
# shellcheck disable=SC2034  # the scripts use it
D=$R/var/lib/nnf-deploy
exec 3<&0 </dev/null # nothing but read may take from the request

fail() {
  printf 'error\t%s\t%s\n' "$(printf %s "$1" | tr '\n\t' '  ')" "${2-}"
  exit 1
}

# forget RUN: a run that has removed everything leaves only its answer, until the
# administrator's side says that it has heard it. It goes by the name of the run:
# what another one has put there since is not its to remove. The lock is held.
forget() {
  if [ -n "$1" ] && [ -f "$D/forget" ] && [ "$(cat "$D/forget")" = "$1" ]; then
    printf 'heard\n'
    IFS= read -r word <&3
    [ "$word" != "heard $1" ] || rm -rf "$D"
  fi
}

[ "$(id -u)" = 0 ] || fail 'the login is not root' 'use --user root, or --sudo'
