#!/bin/sh
# catalog.sh PROGRAM <CATALOG  prints the entries of a journal catalogue for PROGRAM, and
# the text before the first entry. Entries for both daemons are printed for each of them,
# because each package can be installed alone.
set -eu
awk -v page="Documentation: man:$1(8)" 'function flush() { if (entry != "" && index(entry, page "\n")) printf "%s", entry; entry = "" }
  /^-- [0-9a-f]+/ { flush(); started = 1 }
  !started { print; next }
  { entry = entry $0 "\n" }
  END { flush() }'
