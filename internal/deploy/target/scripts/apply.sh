# shellcheck shell=sh
# Receives an archive, verifies it, and starts the switch when nnf-deploy sends "go".
# Until then nothing on the node changes; from then on the switch does not depend on
# this connection.
#
# Request: "archive BYTES", the archive, then "go RUN". Answers "staged", "switching",
# and the result of the switch; then "heard", to which the reply is "heard RUN".

stage=$D/stage new=.nnf-deploy-new

# sweep: removes everything that staging has made.
sweep() {
  if [ -f "$stage/manifest" ]; then
    while IFS=' ' read -r what _ _ _ path _; do
      case $what in file | binary) rm -f "$R$path$new" "$R$path.nnf-deploy-old" ;; esac
    done <"$stage/manifest"
  fi
  if [ -f "$stage/moved" ]; then
    while IFS=' ' read -r _ path; do rm -f "$R$path.nnf-deploy-old"; done <"$stage/moved"
  fi
  if [ -f "$stage/made" ]; then
    sort -r "$stage/made" | while IFS= read -r path; do rmdir "$R$path" 2>/dev/null; done
  fi
  rm -rf "$stage"
}

# folder PATH: makes the directory, and records what it made.
folder() {
  [ ! -d "$R$1" ] || return 0
  if [ -e "$R$1" ] || [ -L "$R$1" ]; then fail "$1 is not a folder" 'move it out of the way'; fi
  [ "${1%/*}" = '' ] || folder "${1%/*}"
  mkdir -m 0755 "$R$1" || fail "cannot make $1" 'is the file system full, or read-only?'
  printf '%s\n' "$1" >>"$stage/made"
}

for tool in flock setsid tar sha256sum systemctl; do
  command -v "$tool" >/dev/null || fail "$tool is missing on this node"
done
if [ -L "$D" ]; then fail '/var/lib/nnf-deploy is a symbolic link' 'remove it'; fi
{ mkdir -p "$D" && chmod 0700 "$D"; } || fail 'cannot make /var/lib/nnf-deploy' 'is the file system full, or read-only?'
[ "$(stat -c %u "$D")" = "$(id -u)" ] || fail '/var/lib/nnf-deploy is not owned by root' 'find out who made it; then remove it'
exec 9>>"$D/lock" || fail 'cannot write to /var/lib/nnf-deploy' 'is the file system full, or read-only?'
flock -n 9 || fail 'another nnf-deploy is at work on this node' 'wait for its end, then run it again'
sweep
rm -f "$D/forget" "$D/forget.new" # of a run whose result never arrived
mkdir "$stage" || fail 'cannot make /var/lib/nnf-deploy/stage' 'is the file system full, or read-only?'
trap sweep EXIT
trap 'exit 1' HUP INT TERM PIPE

IFS=' ' read -r word size <&3
case $word$size in archive*[!0-9]* | archive) fail 'the request is not understood' ;; archive*) ;; *) fail 'the request is not understood' ;; esac
said=$(head -c "$size" <&3 | tar -x -f - -C "$stage" --no-same-owner 2>&1) ||
  fail "unpacking in /var/lib/nnf-deploy: $(printf %s "$said" | head -n 1)" 'is the file system full, or did the connection break?'
said=$(cd "$stage" && sha256sum -c --quiet sums 2>&1) || fail "what arrived is not what was sent: $(printf %s "$said" | head -n 1)" 'run it again'

# The new files, beside the old ones: a full disk shows now.
while IFS=' ' read -r what member mode _ path _; do
  case $what in
  file | binary)
    [ ! -d "$R$path" ] || fail "$path is a folder" 'move it out of the way'
    folder "${path%/*}"
    said=$(cp "$stage/$member" "$R$path$new" 2>&1 && chmod "$mode" "$R$path$new" 2>&1 && sync "$R$path$new" 2>&1) ||
      fail "cannot write $path: $said" 'is the file system full, or read-only?'
    ;;
  esac
done <"$stage/manifest"

printf 'staged\n'
IFS= read -r word <&3
run=$(cat "$stage/run")
[ "$word" = "go $run" ] || fail 'the connection ended before the switch; nothing was changed' 'run it again'
trap - EXIT
rm -f "$D/result"
# Where all processes of a session end with its connection (KillUserProcesses=yes, sshd
# by socket activation), a session of its own is not enough.
scope=
if [ -z "$R" ] && systemd-run --scope --quiet --collect true >/dev/null 2>&1; then scope='systemd-run --scope --quiet --collect'; fi
# shellcheck disable=SC2086  # words
env -i R="$R" PATH="$PATH" LC_ALL=C $scope setsid sh "$stage/switch.sh" </dev/null 3<&- >"$D/log" 2>&1 &
printf 'switching\n'
wait $!
cat "$D/result" 2>/dev/null || fail 'the switch ended without a result' 'look at /var/lib/nnf-deploy/log on the node'
forget "$run"
exit 0
