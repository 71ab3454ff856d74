# shellcheck shell=sh
# Waits for a switch whose connection broke, and prints its result. Request:
# "wait SECONDS RUN", and "confirmed RUN" as in apply.sh.
IFS=' ' read -r _ seconds run <&3
case $seconds in *[!0-9]* | '') fail 'the request is malformed' ;; esac
[ -e "$D/lock" ] || fail 'no run was started on this node' 'run the command again'
exec 9>>"$D/lock" || fail 'cannot write to /var/lib/nnf-deploy' 'check whether the file system is full or read-only'
flock -w "$seconds" 9 || fail "the switch did not finish within $seconds seconds" 'see /var/lib/nnf-deploy/log on the node'
cat "$D/result" 2>/dev/null || fail 'the switch did not start, or ended without a result' 'run the command again'
forget "$run"
exit 0
