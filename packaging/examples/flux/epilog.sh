#!/bin/bash
# Flux epilog (a file in /etc/flux/system/epilog.d, runs as root on every node of the job): the
# counterpart of prolog.sh, which explains why neither is needed.
set -uo pipefail

# Do not skip this: without the daemon, the storage of the job cannot be unmounted. systemctl
# returns when the daemon has received the ClientMounts of this node. If the API server is
# unreachable, this start times out, but the daemon keeps retrying.
if timeout "${CLIENTMOUNTD_WAIT:-60}" systemctl start clientmountd.service; then
  exit 0
fi
case $(systemctl is-active clientmountd.service) in
  active | activating) exit 0 ;; # running, and waiting for the API server
esac
# An exit status other than 0 drains the node, which is right because its storage is still mounted.
echo "epilog of job ${FLUX_JOB_ID:-?}: clientmountd does not start, storage stays mounted: see journalctl -u clientmountd" >&2
exit 1
