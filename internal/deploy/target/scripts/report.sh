# shellcheck shell=sh
# Runs a command of clientmountd that reports about the node, and changes nothing. The request has
# a line "argument WORD" for each argument, then "end". With the line "bundle", the command also
# writes a support bundle, which is sent after its output.
set --
dir='' limit=20
while IFS=' ' read -r what value <&3; do
  case $what in
  argument) set -- "$@" "$value" ;;
  bundle) dir=new limit=40 ;;
  end) break ;;
  esac
done
bin=$R/usr/bin/clientmountd
[ -x "$bin" ] || fail 'clientmountd is not installed' 'run nnf-deploy install for this node'
if [ -n "$dir" ]; then
  dir=$(mktemp -d "$R/run/nnf-deploy-bundle.XXXXXX") || fail 'cannot create a directory in /run' 'check whether the file system is full'
  trap 'rm -rf "$dir"' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  set -- "$@" --bundle "$dir/bundle.tar.gz"
fi
printf 'nnf-deploy\treport\t1\n'
exec 4>&1
printf 'output\t'
# The last line of the messages is the exit code.
messages=$({ { timeout -k 5 "$limit" "$bin" "$@"; printf '\n%s' "$?" >&2; } | head -c 524289 | base64 | tr -d '\n' >&4; } 2>&1 | tail -c 2048)
printf '\nmessages\t%s\n' "$(printf %s "$messages" | base64 | tr -d '\n')"
if [ -n "$dir" ] && [ -f "$dir/bundle.tar.gz" ]; then
  # Each line can be decoded alone, because its length is a multiple of four.
  sum=$(sha256sum <"$dir/bundle.tar.gz")
  head -c 8388609 "$dir/bundle.tar.gz" | base64 -w 65536 | sed "s/^/bundle$(printf '\t')/"
  printf 'sum\t%s\n' "$(printf %s "${sum%% *}" | base64 | tr -d '\n')"
fi
printf 'end\n'
