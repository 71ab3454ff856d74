#!/bin/bash
# Epilog of Slurm and Flux, which runs as root on every node of a job: waits until the storage of
# the job is unmounted on this node. It drains the node if the storage has a problem that does not
# heal without help.
set -uo pipefail
# shellcheck source=packaging/examples/workload-manager/functions.sh
. "${0%/*}/functions.sh" || exit 0

if ! start_after_job; then
  drain_for "the daemon cannot be started, storage stays mounted: see journalctl -u clientmountd"
  exit $(($? == 0 ? 0 : 1))
fi
if get_workflow && ! await unmounted "$unmount_timeout"; then
  say "the storage of workflow $workflow is not unmounted: $reason"
  drain_if_needed
  [ $? != 2 ] || exit 1 # the workload manager then drains the node with a reason of its own
fi
exit 0
