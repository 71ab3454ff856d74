#!/bin/sh
# Runs after clientmountd was installed ($1 = 1) or upgraded (2), and does what
# %systemd_post does. The preset only makes links, so it is applied even if systemd
# does not run, as in a chroot in which an image is built. Nothing here may fail.
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
  # LVM then needs no reboot to have its modules.
  /usr/lib/systemd/systemd-modules-load clientmountd.conf >/dev/null 2>&1
fi
exit 0
