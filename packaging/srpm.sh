#!/bin/sh
# srpm.sh OUT  builds the source RPM in OUT from the archive that source.sh has put
# there. rpmbuild --rebuild builds the binary RPMs from it without a network.
set -eu
out=$(realpath "$1")
SOURCE_DATE_EPOCH=$(stat -c %Y "$out"/source/compute-daemons-*/VERSION)
export SOURCE_DATE_EPOCH
cd "$out"
# The directories are relative, because they are recorded in the package: with absolute
# paths the package would depend on the build directory. --nodeps: build dependencies are
# not needed to create a source package.
rpmbuild -bs --nodeps --quiet --define "_topdir rpmbuild" --define "_sourcedir ." --define "_srcrpmdir ." \
  --define "_buildhost reproducible" --define "use_source_date_epoch_as_buildtime 1" \
  --define "_source_payload w9.gzdio" source/compute-daemons-*/packaging/compute-daemons.spec
rm -rf rpmbuild
