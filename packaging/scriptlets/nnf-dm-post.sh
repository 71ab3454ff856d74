#!/bin/sh
# Runs after nnf-dm is installed ($1 = 1) or upgraded (2), and does the work of
# %systemd_post for the socket: the first connection starts the service. The preset only
# creates links, so it is applied even if systemd is not running, for example in the
# chroot of an image build. Nothing here may fail.
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload preset nnf-dm.socket >/dev/null 2>&1
fi
if command -v systemd-tmpfiles >/dev/null 2>&1; then
  systemd-tmpfiles --create nnf-dm.conf >/dev/null 2>&1
fi
if command -v journalctl >/dev/null 2>&1; then
  journalctl --update-catalog >/dev/null 2>&1
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload >/dev/null 2>&1
fi
exit 0
