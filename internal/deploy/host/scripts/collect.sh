# shellcheck shell=sh
# Waits for a switch that goes on without us, and says what became of it.
# Request: "wait SECONDS".
IFS=' ' read -r _ seconds <&3
case $seconds in *[!0-9]* | '') fail 'the request is not understood' ;; esac
[ -e "$D/lock" ] || fail 'nothing was begun on this node' 'run it again'
flock -w "$seconds" "$D/lock" true || fail "the switch has not ended after $seconds seconds" 'look at /var/lib/nnf-deploy/log on the node'
cat "$D/result" 2>/dev/null || fail 'the switch did not begin, or ended without a result' 'run it again'
exit 0
