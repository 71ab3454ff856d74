#!/bin/sh
# sbom.sh PROGRAM DOCUMENT  writes what PROGRAM is made of into DOCUMENT. Both may
# be relative to any folder.
set -eu
program=$(realpath "$1")
document=$(realpath -m "$2")
cd "$(dirname "$0")/.."
GOOS='' GOARCH='' go run -buildvcs=false ./packaging/sbom "$program" >"$document"
