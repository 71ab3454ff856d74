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

[ "$(id -u)" = 0 ] || fail 'the login is not root' 'use --user root, or --sudo'
