#!/bin/bash
# Flux prolog (a file in /etc/flux/system/prolog.d, runs as root on every node of the job): stops
# clientmountd while a job runs.
#
# You do not need this. Sites stopped the older daemon because it woke up a dozen times a
# second. This daemon is idle until a ClientMount changes: it holds one watch, does not poll, and
# opens no port. If you stop it anyway, mounts stay, but nothing is mounted or unmounted until the
# epilog runs. Do not use this script on nodes that several jobs share.
#
# nnf-dm is not stopped: its first client starts it, and it ends when it is idle.
set -uo pipefail

# Flux has already waited for the mounts of the job. The daemon finishes a running step before it
# stops.
if ! systemctl stop clientmountd.service; then
  # An exit status other than 0 would drain the node. A running daemon is no reason for that.
  echo "prolog of job ${FLUX_JOB_ID:-?}: clientmountd was not stopped and stays, the job can run: see journalctl -u clientmountd" >&2
fi
exit 0
