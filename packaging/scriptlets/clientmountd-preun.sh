#!/bin/sh
# Runs before clientmountd ($1 = 0) or its older version (1) is removed, and does the work of
# %systemd_preun. Mounts stay, because they belong to the jobs.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload disable clientmountd.service >/dev/null 2>&1
  if [ -d /run/systemd/system ]; then
    systemctl stop clientmountd.service >/dev/null 2>&1
  fi
fi
exit 0
