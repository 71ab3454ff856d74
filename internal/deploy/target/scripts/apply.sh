# shellcheck shell=sh
# Receives an archive, verifies it, and starts the switch when nnf-deploy sends "go". Until
# then, the node is not changed; from then on, the switch does not depend on this
# connection.
#
# Request: "archive BYTES", the archive, then "go RUN". Answer: "staged", "switching", and
# the result of the switch; then "confirm", to which the reply is "confirmed RUN".

stage=$D/stage new=.nnf-deploy-new

# cleanup: removes all files and directories that staging has created.
cleanup() {
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

# directory PATH: creates the directory and its parents, and records the created ones.
directory() {
  foreign "$R$1" && fail "$1 is a symbolic link of another user" 'find out what created it, then remove it'
  [ ! -d "$R$1" ] || return 0
  if [ -e "$R$1" ] || [ -L "$R$1" ]; then fail "$1 is not a directory" 'move it away'; fi
  [ "${1%/*}" = '' ] || directory "${1%/*}"
  mkdir -m 0755 "$R$1" || fail "cannot create $1" 'check whether the file system is full or read-only'
  printf '%s\n' "$1" >>"$stage/made"
}

for tool in flock setsid tar sha256sum systemctl; do
  command -v "$tool" >/dev/null || fail "$tool is missing on this node"
done
if [ -L "$D" ]; then fail '/var/lib/nnf-deploy is a symbolic link' 'remove it'; fi
{ mkdir -p "$D" && chmod 0700 "$D"; } || fail 'cannot create /var/lib/nnf-deploy' 'check whether the file system is full or read-only'
[ "$(stat -c %u "$D")" = "$(id -u)" ] || fail '/var/lib/nnf-deploy is not owned by root' 'find out what created it, then remove it'
exec 9>>"$D/lock" || fail 'cannot write to /var/lib/nnf-deploy' 'check whether the file system is full or read-only'
flock -n 9 || fail 'another nnf-deploy is changing this node' 'wait until it has finished, then run the command again'
cleanup
rm -f "$D/forget" "$D/forget.new" # of a run whose result was not confirmed
mkdir "$stage" || fail 'cannot create /var/lib/nnf-deploy/stage' 'check whether the file system is full or read-only'
trap cleanup EXIT
trap 'exit 1' HUP INT TERM PIPE

IFS=' ' read -r word size <&3
case $word$size in archive*[!0-9]* | archive) fail 'the request is malformed' ;; archive*) ;; *) fail 'the request is malformed' ;; esac
output=$(head -c "$size" <&3 | tar -x -f - -C "$stage" --no-same-owner 2>&1) ||
  fail "cannot unpack in /var/lib/nnf-deploy: $(printf %s "$output" | head -n 1)" 'check whether the file system is full; if the connection broke, run the command again'
output=$(cd "$stage" && sha256sum -c --quiet sums 2>&1) || fail "the files arrived damaged: $(printf %s "$output" | head -n 1)" 'run the command again'

# Write the new files beside the old ones, so that a full disk is detected now.
while IFS=' ' read -r what member _ _ path _; do
  case $what in
  file | binary)
    [ ! -d "$R$path" ] || fail "$path is a directory" 'move it away'
    directory "${path%/*}"
    # Nothing is written through a link that is already there. The switch sets mode and owner, after it
    # has protected the directories.
    output=$(cp --remove-destination "$stage/$member" "$R$path$new" 2>&1 && sync "$R$path$new" 2>&1) ||
      fail "cannot write $path: $output" 'check whether the file system is full or read-only'
    ;;
  esac
done <"$stage/manifest"

printf 'staged\n'
IFS= read -r word <&3
run=$(cat "$stage/run")
[ "$word" = "go $run" ] || fail 'the connection broke before the switch; nothing was changed' 'run the command again'
trap - EXIT
rm -f "$D/result"
# A new session is not enough where all processes are killed when the connection ends
# (KillUserProcesses=yes, socket-activated sshd).
scope=
if [ -z "$R" ] && systemd-run --scope --quiet --collect true >/dev/null 2>&1; then scope='systemd-run --scope --quiet --collect'; fi
# shellcheck disable=SC2086  # $scope has several words
env -i R="$R" PATH="$PATH" LC_ALL=C $scope setsid sh "$stage/switch.sh" </dev/null 3<&- >"$D/log" 2>&1 &
printf 'switching\n'
wait $!
cat "$D/result" 2>/dev/null || fail 'the switch ended without a result' 'see /var/lib/nnf-deploy/log on the node'
forget "$run"
exit 0
