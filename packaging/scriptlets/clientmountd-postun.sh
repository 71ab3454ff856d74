#!/bin/sh
# Runs after clientmountd ($1 = 0) or its older version (1) is removed, and does the work of
# %systemd_postun_with_restart. A restart does not change mounts.
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
