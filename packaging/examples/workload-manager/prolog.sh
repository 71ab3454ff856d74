#!/bin/bash
# Prolog of Slurm and Flux, which runs as root on every node of a job: waits until the storage of
# the job is mounted on this node.
#
# If it is not, the job does not start, and shows the reason. The node is drained only if it has a
# problem that does not heal without help.
set -uo pipefail
# shellcheck source=packaging/examples/workload-manager/functions.sh
. "${0%/*}/functions.sh" || exit 0

if get_workflow && expected "$workflow" && ! await mounted "$mount_timeout"; then
  say "the storage of workflow $workflow is not mounted: $reason"
  drain_if_needed && exit 1
  refuse_job "clientmountd on $node: $reason" || exit 1
  exit 0
fi
stop_for_job
exit 0
