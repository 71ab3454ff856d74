#!/bin/sh
# Runs after clientmountd is installed ($1 = 1) or upgraded (2), and does the work of
# %systemd_post. The preset only creates links, so it is applied even if systemd is
# not running, for example in the chroot of an image build. Nothing here may fail.
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null 2>&1; then
  systemctl --no-reload preset clientmountd.service >/dev/null 2>&1
fi
if command -v systemd-tmpfiles >/dev/null 2>&1; then
  systemd-tmpfiles --create clientmountd.conf >/dev/null 2>&1
fi
if command -v journalctl >/dev/null 2>&1; then
  journalctl --update-catalog >/dev/null 2>&1
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload >/dev/null 2>&1
  # Loads the modules that LVM needs, without a reboot.
  /usr/lib/systemd/systemd-modules-load clientmountd.conf >/dev/null 2>&1
fi
exit 0
