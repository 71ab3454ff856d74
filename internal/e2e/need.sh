#!/bin/bash
# need.sh COMMAND...  makes sure that the commands exist: installs the packages
# that have them when we are root and know the package manager, else says what
# is missing. Waits while another process installs packages. Never asks a
# question.
set -euo pipefail
declare -A deb=([mkfs.xfs]=xfsprogs [losetup]=mount [findmnt]=util-linux [shellcheck]=shellcheck [systemd-analyze]=systemd [man]=man-db [journalctl]=systemd
  [rpmbuild]=rpm [rpmlint]="rpmlint python3-magic cpio" [createrepo_c]=createrepo-c [gpg]=gnupg [rpmsign]=rpm
  [mmdebstrap]=mmdebstrap [systemd-nspawn]=systemd-container [qemu-system-x86_64]=qemu-system-x86
  [busybox]=busybox-static [cpio]=cpio [depmod]=kmod [mke2fs]=e2fsprogs
  [ssh]=openssh-client [sshd]=openssh-server)
declare -A rpm=([mkfs.xfs]=xfsprogs [losetup]=util-linux [findmnt]=util-linux [shellcheck]=ShellCheck [systemd-analyze]=systemd [man]=man-db [journalctl]=systemd
  [rpmbuild]=rpm-build [gpg]=gnupg2 [rpmsign]=rpm-sign [ssh]=openssh-clients)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for c in "$@"; do command -v "$c" >/dev/null || missing+=("$c"); done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2206 # a command may take several packages
  for c in "${missing[@]}"; do pkgs+=(${deb[$c]:-$c}); done
  echo "need: installing ${pkgs[*]}" >&2
  log=$(mktemp)
  export APT_NOTES=4 DEBIAN_FRONTEND=noninteractive
  { "${0%/*}/apt.sh" update -q && "${0%/*}/apt.sh" install -qy --no-install-recommends "${pkgs[@]}"; } 4>&2 >"$log" 2>&1 || { tail -5 "$log" >&2; }
  rm -f "$log"
elif [ "$(id -u)" = 0 ]; then
  for manager in dnf microdnf yum; do # dnf and yum wait for their lock by themselves
    command -v $manager >/dev/null || continue
    for c in "${missing[@]}"; do pkgs+=("${rpm[$c]:-$c}"); done
    echo "need: installing ${pkgs[*]}" >&2
    $manager -y install "${pkgs[@]}" >&2 || true
    break
  done
fi
for c in "${missing[@]}"; do
  command -v "$c" >/dev/null || { echo "need: the command $c is missing; install the package ${deb[$c]:-$c} (Debian) or ${rpm[$c]:-$c} (RPM)" >&2; bad=1; }
done
[ -z "${bad:-}" ]
