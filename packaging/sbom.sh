#!/bin/sh
# sbom.sh PROGRAM DOCUMENT VERSION  writes the modules of PROGRAM, a CycloneDX document.
# The same program gives the same document. make bin/cyclonedx-gomod builds the tool.
set -eu
exec "$(dirname "$0")/../bin/cyclonedx-gomod" bin -json -noserial -notimestamp -std -version "$3" -output "$2" "$1"
