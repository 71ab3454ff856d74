#!/bin/sh
# Runs after clientmountd ($1 = 0) or its older version (1) was removed, and does what
# %systemd_postun_with_restart does. A restart does not change mounts.
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload >/dev/null 2>&1
  if [ "$1" -ge 1 ]; then
    systemctl try-restart clientmountd.service >/dev/null 2>&1
  fi
fi
if [ "$1" -eq 0 ] && command -v journalctl >/dev/null 2>&1; then
  journalctl --update-catalog >/dev/null 2>&1
fi
exit 0
