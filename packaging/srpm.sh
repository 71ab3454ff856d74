#!/bin/sh
# srpm.sh OUT  makes the source RPM in OUT from the archive that source.sh has
# made there. rpmbuild --rebuild turns it into the binary RPMs without a network.
set -eu
out=$(cd "$1" && pwd)
cd "$out"/source/compute-daemons-*
SOURCE_DATE_EPOCH=$(stat -c %Y VERSION)
export SOURCE_DATE_EPOCH
# --nodeps: what is needed for a build is not needed for packing its sources.
rpmbuild -bs --nodeps --quiet --define "_topdir $out/rpmbuild" --define "_sourcedir $out" --define "_srcrpmdir $out" \
  --define "_buildhost reproducible" --define "use_source_date_epoch_as_buildtime 1" \
  --define "_source_payload w9.gzdio" packaging/compute-daemons.spec
rm -rf "$out/rpmbuild"
