#!/bin/sh
# srpm.sh OUT  makes the source RPM in OUT from the archive that source.sh has
# made there. rpmbuild --rebuild turns it into the binary RPMs without a network.
set -eu
out=$(cd "$1" && pwd)
SOURCE_DATE_EPOCH=$(stat -c %Y "$out"/source/compute-daemons-*/VERSION)
export SOURCE_DATE_EPOCH
cd "$out"
# Folders are relative, because the package quotes them and would differ by where
# it was made. --nodeps: what is needed for a build is not needed for packing its
# sources.
rpmbuild -bs --nodeps --quiet --define "_topdir rpmbuild" --define "_sourcedir ." --define "_srcrpmdir ." \
  --define "_buildhost reproducible" --define "use_source_date_epoch_as_buildtime 1" \
  --define "_source_payload w9.gzdio" source/compute-daemons-*/packaging/compute-daemons.spec
rm -rf rpmbuild
