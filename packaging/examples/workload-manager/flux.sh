# shellcheck shell=bash disable=SC2034 # functions.sh and its users read the variables
# The functions for Flux. functions.sh reads this file.
#
# Only the owner of the Flux instance can drain nodes. The scripts run as root, so set
# access.allow-root-owner = true in the configuration of the system instance.

job=${FLUX_JOB_ID:-}
node=$(uname -n)

# workflow_of_job: prints the name of the workflow of the job, or nothing if it has none. The
# service of flux-coral2 calls it "fluxjob-", followed by the ID of the job as a decimal number.
# Change this function if your site uses other names.
workflow_of_job() {
  local decimal
  [ -n "$job" ] || return 0
  flux job info "$job" jobspec | jq -e .attributes.system.dw >/dev/null || return 0
  decimal=$(flux job id --to=dec "$job") && echo "fluxjob-$decimal"
}

# expected WORKFLOW: reports whether the prolog must wait for its storage. Flux runs the prolog while
# the storage is mounted, so the ClientMounts of the job may not have arrived yet.
expected() { true; }

# drain REASON: drains this node, unless it is drained already.
drain() { flux resource drain --update "$node" "$1"; }

# drain_reason: prints why this node is drained, or nothing if it is not.
drain_reason() { flux resource drain --no-header --format='{reason}' --include="$node"; }

undrain() { flux resource undrain "$node"; }

# refuse_job REASON: ends the job without draining the node: Flux drains nodes whose prolog fails.
refuse_job() { flux job raise --type=prolog --severity=0 "$job" "$1"; }
