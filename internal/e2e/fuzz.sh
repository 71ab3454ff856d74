#!/bin/bash
# fuzz.sh TIME  runs every fuzz target of the module for TIME, one at a time.
set -euo pipefail
cd "$(dirname "$0")/../.."
n=0
while IFS=: read -r file name; do
  dir=$(dirname "$file")
  echo "fuzz: $dir $name"
  go test -buildvcs=false -run '^$' -fuzz "^$name\$" -fuzztime "$1" "./$dir"
  n=$((n + 1))
done < <(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' internal cmd | sed 's/func //' | sort)
echo "fuzz: $n targets, $1 each"
[ "$n" -gt 0 ]
