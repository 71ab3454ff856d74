#!/bin/sh
# Runs before nnf-dm is installed ($1 = 1) or upgraded (2), and creates its user, whose
# group owns files of the package. The line below is the same as in
# sysusers.d/nnf-dm.conf, which is not installed yet.
if command -v systemd-sysusers >/dev/null 2>&1; then
  systemd-sysusers --replace=/usr/lib/sysusers.d/nnf-dm.conf - >/dev/null 2>&1 <<'EOF'
u nnf-dm - "Near-Node Flash data movement"
EOF
elif command -v useradd >/dev/null 2>&1; then
  getent group nnf-dm >/dev/null 2>&1 || groupadd -r nnf-dm >/dev/null 2>&1
  getent passwd nnf-dm >/dev/null 2>&1 ||
    useradd -r -g nnf-dm -d / -s /sbin/nologin -c "Near-Node Flash data movement" nnf-dm >/dev/null 2>&1
fi
exit 0
