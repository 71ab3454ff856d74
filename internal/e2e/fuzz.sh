#!/bin/bash
# fuzz.sh TIME  runs each fuzz target of the module for TIME, two concurrently.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GOFLAGS=-buildvcs=false
time=$1
targets=$(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' internal cmd | sed 's/func //' | sort)
[ -n "$targets" ] || { echo "fuzz: no targets found" >&2; exit 1; }
# out_of_time succeeds if the only failure is the end of -fuzztime, which go test sometimes
# reports as a failure (go.dev/issue/75804, fixed in Go 1.27).
out_of_time() { # LOG
  [ "$(sed -n '/^--- FAIL:/,/^FAIL/p' "$1" | sed '1d;$d' | tr -d ' ')" = contextdeadlineexceeded ]
}
fuzz() { # FILE:NAME
  local dir=${1%/*} name=${1##*:} log
  log=$(mktemp)
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 1 "./$dir" >"$log" 2>&1 || out_of_time "$log"; then
    echo "fuzz: ok $dir $name: $(grep -oE 'execs: [0-9]+' "$log" | tail -1)"
    rm -f "$log"
  else
    echo "fuzz: FAIL $dir $name" >&2
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
}
export -f fuzz out_of_time
export time
# xargs exits with an error if any target fails.
# shellcheck disable=SC2016 # the inner shell expands it
xargs -P 2 -I{} bash -c 'fuzz "$1"' _ {} <<<"$targets"
echo "fuzz: $(wc -l <<<"$targets") targets, $time each"
