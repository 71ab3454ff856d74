#!/bin/sh
# Before clientmountd is removed ($1 = 0) or its older version is (1): what
# %systemd_preun does. Mounts stay: they belong to the jobs.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload disable clientmountd.service >/dev/null 2>&1
  if [ -d /run/systemd/system ]; then
    systemctl stop clientmountd.service >/dev/null 2>&1
  fi
fi
exit 0
