#!/bin/bash
# Flux epilog (a file in /etc/flux/system/epilog.d, runs as root on every node of the job): the other half of
# prolog.sh, which says why neither is needed.
set -uo pipefail

# The job's storage cannot be unmounted without the daemon, so this must not be skipped. The daemon is ready when
# it knows the ClientMounts of this node; if the API server is away for long, the start
# times out and the daemon keeps retrying.
if timeout "${CLIENTMOUNTD_WAIT:-60}" systemctl start clientmountd.service; then
  exit 0
fi
case $(systemctl is-active clientmountd.service) in
  active | activating) exit 0 ;; # it is there, and waits for the API server
esac
# An exit status other than 0 drains the node: right, its storage is still mounted.
echo "epilog of job ${FLUX_JOB_ID:-?}: clientmountd does not start, storage stays mounted: see journalctl -u clientmountd" >&2
exit 1
