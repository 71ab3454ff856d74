#!/bin/bash
# need.sh COMMAND...  ensures that the commands exist. As root on a system with apt,
# dnf, microdnf or yum it installs the packages that provide them; otherwise it
# prints the missing commands. It waits while another process installs packages, and
# is never interactive.
#
# NEED_BIN  directory for single programs of a package (default /usr/local/bin)
set -euo pipefail
declare -A deb=([mkfs.xfs]=xfsprogs [mkfs.ext4]=e2fsprogs [losetup]=mount [findmnt]=util-linux [shellcheck]=shellcheck [systemd-analyze]=systemd [man]=man-db [journalctl]=systemd
  [rpmbuild]=rpm [rpmlint]="rpmlint python3-magic cpio" [createrepo_c]=createrepo-c [gpg]=gnupg [rpmsign]=rpm
  [mmdebstrap]=mmdebstrap [systemd-nspawn]=systemd-container [qemu-system-x86_64]=qemu-system-x86
  [busybox]=busybox-static [cpio]=cpio [depmod]=kmod [mke2fs]=e2fsprogs
  [ssh]=openssh-client [sshd]=openssh-server [promtool]=prometheus)
# Debian packages that would start a server, now and at each boot: only the program is extracted.
declare -A extracted=([promtool]=1)
declare -A rpm=([mkfs.xfs]=xfsprogs [mkfs.ext4]=e2fsprogs [losetup]=util-linux [findmnt]=util-linux [shellcheck]=ShellCheck [systemd-analyze]=systemd [man]=man-db [journalctl]=systemd
  [rpmbuild]=rpm-build [gpg]=gnupg2 [rpmsign]=rpm-sign [ssh]=openssh-clients [promtool]=/usr/bin/promtool)
PATH=$PATH:/usr/sbin:/sbin
missing=() pkgs=() single=()
for c in "$@"; do command -v "$c" >/dev/null || missing+=("$c"); done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # shellcheck disable=SC2206 # a command may need several packages
  for c in "${missing[@]}"; do if [ "${extracted[$c]:-}" ]; then single+=("$c"); else pkgs+=(${deb[$c]:-$c}); fi; done
  echo "need: installing ${pkgs[*]} ${single[*]}" >&2
  apt=$(cd "${0%/*}" && pwd)/apt.sh log=$(mktemp) dir=$(mktemp -d)
  export APT_NOTES=4 DEBIAN_FRONTEND=noninteractive
  extract() { # COMMAND  copies the program from its package
    (cd "$dir" && "$apt" download -q "${deb[$1]}" && dpkg-deb --extract "${deb[$1]}"_*.deb . && cp "usr/bin/$1" "${NEED_BIN:-/usr/local/bin}/")
  }
  { "$apt" update -q && { [ ${#pkgs[@]} = 0 ] || "$apt" install -qy --no-install-recommends "${pkgs[@]}"; } &&
    for c in "${single[@]}"; do extract "$c"; done; } 4>&2 >"$log" 2>&1 || { tail -5 "$log" >&2; }
  rm -rf "$log" "$dir"
elif [ "$(id -u)" = 0 ]; then
  for manager in dnf microdnf yum; do # these wait for their lock
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
