#!/bin/bash
# apt.sh ARGUMENTS...  runs apt-get with these arguments, and waits while another
# process holds one of its locks. Cloud machines upgrade their packages at boot, so
# the locks are often held right after the first login.
#
# APT_LOCK_WAIT   maximum total wait, in seconds (default 600)
# APT_LOCK_PAUSE  pause between two attempts, in seconds (default 5)
# APT_NOTES       file descriptor for the notes about waiting (default 2)
set -uo pipefail
limit=${APT_LOCK_WAIT:-600} pause=${APT_LOCK_PAUSE:-5} notes=${APT_NOTES:-2}

# With DPkg::Lock::Timeout, apt-get itself waits for the locks of dpkg, but not for the
# locks of the package lists and of the downloaded archives (apt.conf(5)).
each=$((limit < 20 ? limit : 20))
locked='(Could not get lock|Unable to lock directory|Unable to lock the administration directory|Unable to acquire the dpkg frontend lock)[^'$'\n'']*'

deadline=$((SECONDS + limit)) waiting=''
while :; do
  # Passes standard output through and captures standard error. The C locale keeps the
  # messages in English.
  { errors=$(LC_ALL=C apt-get "$@" -o DPkg::Lock::Timeout="$each" 2>&1 >&3 3>&-); code=$?; } 3>&1
  [[ $code != 0 && $errors =~ $locked ]] || break
  if ((SECONDS >= deadline)); then
    echo "apt.sh: error: another process has used the package manager for $limit s: ${BASH_REMATCH[0]}" >&"$notes"
    echo "apt.sh: hint: run the command again when that process has finished; unattended upgrades log to /var/log/unattended-upgrades" >&"$notes"
    break
  fi
  [ -n "$waiting" ] || echo "apt.sh: another process uses the package manager: ${BASH_REMATCH[0]}; waiting up to $limit s" >&"$notes"
  waiting=1
  sleep "$pause"
done
[ -z "$errors" ] || printf '%s\n' "$errors" >&2
exit "$code"
