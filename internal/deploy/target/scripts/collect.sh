# shellcheck shell=sh
# Waits for a switch that continued without its connection, and prints its result.
# Request: "wait SECONDS RUN", and "heard RUN" as in apply.
IFS=' ' read -r _ seconds run <&3
case $seconds in *[!0-9]* | '') fail 'the request is not understood' ;; esac
[ -e "$D/lock" ] || fail 'nothing was begun on this node' 'run it again'
exec 9>>"$D/lock" || fail 'cannot write to /var/lib/nnf-deploy' 'is the file system full, or read-only?'
flock -w "$seconds" 9 || fail "the switch has not ended after $seconds seconds" 'look at /var/lib/nnf-deploy/log on the node'
cat "$D/result" 2>/dev/null || fail 'the switch did not begin, or ended without a result' 'run it again'
forget "$run"
exit 0
