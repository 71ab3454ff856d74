# shellcheck shell=bash disable=SC2034 # other scripts use the settings and functions
# Settings and functions of prolog.sh, epilog.sh and health.sh, which read this file and then
# slurm.sh or flux.sh from the same directory. Edit the settings in the installed copy.

# Where clientmountd, jq and the commands of the workload manager are.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH # slurmd sets none

# How long the prolog waits until the storage of the job is mounted, and the epilog until it is
# unmounted.
mount_timeout=5m
unmount_timeout=10m

# Flags of "clientmountd health", for example (--grace-stuck 10m): how long a problem may last
# before it drains a node.
health_flags=()

# yes: health.sh puts a node that these scripts have drained back into service when all its
# storage is fine again. no: an administrator does.
undrain=yes

# yes: stop clientmountd while a job has the node, after its storage is mounted. You do not need
# this: an idle clientmountd does not disturb jobs. Never use it on nodes that several jobs share,
# because nothing is mounted or unmounted while the daemon is stopped.
stop_daemon=no

# The start of the reason for which these scripts drain a node. They never change a node that has
# been drained for another reason.
prefix="clientmountd: "

# This file exists if this node is not drained by these scripts, so that a healthy node sends no
# request to the workload manager. It is lost at a reboot, after which the first check asks.
in_service=/run/clientmountd-in-service

# The functions below need no change. slurm.sh and flux.sh set these variables.
job='' node=''
script=${0##*/}

# say TEXT: writes a line to the journal, and to standard error for a person who runs the script. It
# always returns 0, because a node without a journal must not lose jobs or be drained.
say() { logger --stderr --tag "clientmountd-${script%.sh}" -- "job ${job:-none}: $*" || :; }

# clean TEXT: prints a text as one short line of plain characters, so that it is harmless in a
# command line, a table and a terminal.
clean() {
  local LC_ALL=C text=$1
  text=${text//[^[:print:]]/ }
  text=${text//[\"\'\`\\\$]/ }
  printf '%.200s\n' "$text"
}

# get_workflow: sets workflow to the name of the workflow of the job. It returns 1 if the job has
# none.
get_workflow() {
  workflow=$(workflow_of_job) || say "cannot find out the workflow of the job"
  [ -n "$workflow" ] || return 1
  [[ $workflow =~ ^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$ ]] && return 0
  say "not a valid name of a workflow: $(clean "$workflow")"
  return 1
}

# await STATE TIMEOUT: waits for the mounts of the workflow on this node. It returns 1 if they do
# not get into the state, and sets reason. It returns 0 if the state is unknown: no job fails
# because of that.
await() {
  reason=$(clientmountd wait --workflow "$workflow" --for "$1" --timeout "$2" 2>&1 >/dev/null)
  local code=$?
  reason=${reason##*$'\n'}
  reason=$(clean "${reason#clientmountd: error: }")
  case $code in
  0) return 0 ;;
  1 | 5) return 1 ;;
  esac
  say "cannot wait for the storage of workflow $workflow: $reason"
}

# drain_if_needed: drains the node if its storage needs that. It returns 0 if the node is drained, 1
# if that is not necessary, and 2 if the workload manager did not drain it.
drain_if_needed() {
  local verdict
  verdict=$(clientmountd health --drain-only "${health_flags[@]}")
  case $? in
  0) return 1 ;;
  1) ;;
  *)
    say "the state of the storage is unknown"
    return 1
    ;;
  esac
  drain_for "$verdict"
}

# drain_for REASON: drains this node, unless it is drained already.
drain_for() {
  local text
  text=$(clean "$prefix$1")
  rm -f "$in_service"
  say "$node must be drained: $text"
  drain "$text" || return 2
}

# all_fine: reports whether nothing is wrong with the storage of this node, however short.
all_fine() {
  local cause flags=()
  for cause in stuck device orphan failed busy slow daemon api; do
    flags+=("--grace-$cause" 0s)
  done
  clientmountd health "${flags[@]}" >/dev/null
}

# put_back: ends a drain by these scripts if all storage of this node is fine.
put_back() {
  [ "$undrain" = yes ] && [ ! -e "$in_service" ] || return 0
  local was
  was=$(drain_reason) || return 0
  if [[ $was == "$prefix"* ]]; then
    all_fine || return 0
    undrain || return 0
    say "put $node back into service, which was drained for: $(clean "$was")"
  fi
  : >"$in_service"
}

# stop_for_job: stops the daemon if stop_daemon is set. A running daemon is no reason to keep a
# job from starting.
stop_for_job() {
  [ "$stop_daemon" = yes ] || return 0
  systemctl stop clientmountd.service || say "clientmountd keeps running, it could not be stopped"
}

# start_after_job: starts the daemon again. systemctl returns when the daemon has received the
# ClientMounts of this node. If the API server is unreachable, the daemon keeps trying.
start_after_job() {
  [ "$stop_daemon" = yes ] || return 0
  timeout 60 systemctl start clientmountd.service && return 0
  case $(systemctl is-active clientmountd.service) in
  active | activating) return 0 ;;
  esac
  return 1
}

if [ -n "${SLURMD_NODENAME:-}" ]; then
  manager=slurm
else
  manager=flux
fi
# shellcheck source=/dev/null
. "${BASH_SOURCE[0]%/*}/$manager.sh"
