#!/bin/bash
# Slurm prolog (Prolog= in slurm.conf, runs as root on every node of the job): stops clientmountd while a job
# computes.
#
# You do not need this. It was done because the older daemon woke up a dozen times a second; this one sleeps
# until a ClientMount changes: one watch, no port, no timer. Where it is stopped nevertheless, mounts stay, but
# nothing is mounted or unmounted until the epilog: not for nodes that several jobs share.
#
# nnf-dm is not stopped: it is started by its first client and ends by itself.
set -uo pipefail

# By now Slurm has waited for the job's mounts. A step that still runs may end first: the daemon sees to that.
if ! systemctl stop clientmountd.service; then
  # Noise is no reason to drain a node, which an exit status other than 0 would do.
  echo "prolog of job ${SLURM_JOB_ID:-?}: clientmountd was not stopped and stays, the job can run: see journalctl -u clientmountd" >&2
fi
exit 0
