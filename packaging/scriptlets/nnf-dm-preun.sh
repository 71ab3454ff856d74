#!/bin/sh
# Before nnf-dm is removed ($1 = 0) or its older version is (1): what
# %systemd_preun does. Both at once: a client that comes between the two would
# start the service again. Copies go on: the rabbit makes them.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload disable nnf-dm.socket nnf-dm.service >/dev/null 2>&1
  if [ -d /run/systemd/system ]; then
    systemctl stop nnf-dm.socket nnf-dm.service >/dev/null 2>&1
  fi
fi
exit 0
