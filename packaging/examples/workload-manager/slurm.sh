# shellcheck shell=bash disable=SC2034 # functions.sh and its users read the variables
# The functions for Slurm. functions.sh reads this file.

job=${SLURM_JOB_ID:-}
node=$SLURMD_NODENAME

# workflow_of_job: prints the name of the workflow of the job, or nothing if it has none. The burst
# buffer plugin of DWS calls the workflow of job 4711 "bb4711". Change this function if your site
# uses other names. A name that users can choose, for example in SLURM_JOB_COMMENT, must also have
# the job ID: a user could otherwise wait for the storage of another job.
workflow_of_job() { [ -z "$job" ] || echo "bb$job"; }

# expected WORKFLOW: reports whether the prolog must wait for its storage. Slurm starts the prolog
# after the burst buffer plugin has reached PreRun, so this node has received the ClientMounts
# of the job, or the job has none.
expected() { ! clientmountd wait --workflow "$1" --for unmounted --timeout 0s 2>/dev/null; }

# drain REASON: drains this node, unless it is drained already.
drain() {
  local state
  state=$(scontrol show node "$node") || return
  [[ $state =~ State=[^\ ]*DRAIN ]] || scontrol update "NodeName=$node" State=DRAIN "Reason=$1"
}

# drain_reason: prints why this node is drained, or nothing if it is not.
drain_reason() {
  local state
  state=$(scontrol show node "$node") || return
  [[ $state =~ State=[^\ ]*DRAIN ]] || return 0
  sed -n 's/^ *Reason=//p' <<<"$state"
}

undrain() { scontrol update "NodeName=$node" State=UNDRAIN; }

# refuse_job REASON: ends the run of the job without draining the node: Slurm drains a node whose
# prolog fails. A batch job is held in the queue, other jobs are cancelled. The reason is in the
# field AdminComment of the job.
refuse_job() {
  scontrol update "JobId=$job" "AdminComment=$1" || :
  scontrol requeuehold "$job" && return 0
  case $(squeue --noheader --jobs="$job" --Format=State | tr -d ' ') in
  RUNNING | CONFIGURING) scancel "$job" ;;
  *) return 0 ;; # the prolog of another node was first
  esac
}
