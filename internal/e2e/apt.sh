#!/bin/bash
# apt.sh ARGUMENTS...  runs apt-get with these arguments, and waits while another
# process holds one of its locks. A cloud machine upgrades its packages at boot,
# so a command that is run right after the login meets these locks.
#
# APT_LOCK_WAIT   how long to wait in all, in seconds; 600 unless set
# APT_LOCK_PAUSE  how long to wait between two attempts, in seconds; 5 unless set
# APT_NOTES       the file descriptor for the notes about waiting; 2 unless set
set -uo pipefail
limit=${APT_LOCK_WAIT:-600} pause=${APT_LOCK_PAUSE:-5} notes=${APT_NOTES:-2}

# apt-get itself waits for the locks of dpkg if so configured, but neither for that
# of the package lists nor for that of the downloaded archives (apt.conf(5)).
each=$((limit < 20 ? limit : 20))
locked='(Could not get lock|Unable to lock directory|Unable to lock the administration directory|Unable to acquire the dpkg frontend lock)[^'$'\n'']*'

deadline=$((SECONDS + limit)) waiting=''
while :; do
  # Standard output passes, standard error is looked at. The texts are in English
  # only in the C locale.
  { errors=$(LC_ALL=C apt-get "$@" -o DPkg::Lock::Timeout="$each" 2>&1 >&3 3>&-); code=$?; } 3>&1
  [[ $code != 0 && $errors =~ $locked ]] || break
  if ((SECONDS >= deadline)); then
    echo "apt.sh: error: another process has used the package manager for $limit s: ${BASH_REMATCH[0]}" >&"$notes"
    echo "apt.sh: hint: run the command again when that process has ended; unattended upgrades are in /var/log/unattended-upgrades" >&"$notes"
    break
  fi
  [ -n "$waiting" ] || echo "apt.sh: another process uses the package manager: ${BASH_REMATCH[0]}; waiting up to $limit s" >&"$notes"
  waiting=1
  sleep "$pause"
done
[ -z "$errors" ] || printf '%s\n' "$errors" >&2
exit "$code"
