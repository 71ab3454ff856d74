#!/bin/sh
# catalog.sh PROGRAM <CATALOG  prints the entries of a journal catalogue that are for
# PROGRAM, and what precedes the first entry. Entries for both daemons are printed for
# each of them, because either package can be installed alone.
set -eu
awk -v page="Documentation: man:$1(8)" 'function flush() { if (entry != "" && index(entry, page "\n")) printf "%s", entry; entry = "" }
  /^-- [0-9a-f]+/ { flush(); begun = 1 }
  !begun { print; next }
  { entry = entry $0 "\n" }
  END { flush() }'
