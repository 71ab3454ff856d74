#!/bin/bash
# HealthCheckProgram of Slurm; with Flux, run it from a timer: drains this node if its storage has a
# problem that does not heal without help, with the problem as the reason. When all storage is fine
# again, it ends a drain of these scripts, and no other.
set -uo pipefail
# shellcheck source=packaging/examples/workload-manager/functions.sh
. "${0%/*}/functions.sh" || exit 1

drain_if_needed
case $? in
0) ;;
1) put_back ;;
*) exit 1 ;;
esac
