#!/bin/sh
# Runs before nnf-dm ($1 = 0) or its older version (1) is removed, and does the work of
# %systemd_preun. Timer, socket and service stop together: a client that connects between
# two stops would start the service again. Running copies continue on the rabbit.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload disable nnf-dm.timer nnf-dm.socket nnf-dm.service >/dev/null 2>&1
  if [ -d /run/systemd/system ]; then
    systemctl stop nnf-dm.timer nnf-dm.socket nnf-dm.service >/dev/null 2>&1
  fi
fi
exit 0
