#!/bin/bash
# prepare.sh         makes the machine that the tests boot, once, in the cache
# prepare.sh --name  prints its folder, which is named after this recipe
#
# The folder holds rootfs/ for the container; and vmlinuz, initrd.cpio and
# root.ext4, made from it, for the virtual machine. The distribution is that of
# this machine, from the package sources of this machine.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/compute-daemons
apt=$(dirname "$0")/../apt.sh # apt-get that waits for its locks
sources=${MACHINE_SOURCES:-/etc/apt/sources.list.d/debian.sources}
[ -e "$sources" ] || sources=/etc/apt/sources.list

# What a compute node has: storage tools and the cluster's; what tests need: dnf
# jq, an sshd that a test may start, and sudo behind it. No python, no editor.
packages="systemd systemd-sysv dbus udev kmod iproute2 procps bsdutils util-linux passwd
 lvm2 lvm2-lockd nvme-cli xfsprogs gfs2-utils dlm-controld corosync e2fsprogs
 rpm dnf createrepo-c jq bash-completion openssh-server sudo"

# Modules that are copied, with what they need, out of 400 MB.
modules="virtio_pci virtio_blk virtio_net virtio_console virtio_rng ext4 crc32c_generic
 9p 9pnet_virtio nvme nvme-tcp nvmet nvmet-tcp dm-mod dm-thin-pool dm-snapshot dm-mirror dm-raid
 raid0 raid456 dm-cache dm-integrity xfs gfs2 dlm autofs4 overlay loop sctp configfs"
initial="virtio_pci virtio_blk crc32c_generic ext4"

# Units that a test machine does without: with them the boot takes twice as long.
# The distribution's sshd would listen on the port of the machine whose network a
# container shares.
masked="getty.target getty@tty1.service serial-getty@ttyS0.service console-getty.service
 corosync.service dlm.service lvmlockd.service lvmlocks.service lvm2-monitor.service
 nvmf-autoconnect.service nvmefc-boot-connections.service
 e2scrub_reap.service e2scrub_all.timer fstrim.timer dpkg-db-backup.timer apt-daily.timer apt-daily-upgrade.timer
 systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
 systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service
 systemd-logind.service systemd-user-sessions.service systemd-firstboot.service
 dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
 modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
 dnf-makecache.timer uuidd.socket ssh.service ssh.socket"

say() { echo "machine: $*" >&2; }

name() {
	sum=$({ cat "$0" "$sources"; release; } | sha256sum | cut -c1-16)
	echo "$cache/machine-$sum"
}

release() {
	# shellcheck disable=SC1091 # there on every machine with systemd
	(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
}

# kernel fetches the distribution's kernel without installing it.
kernel() {
	local image
	image=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
	[ -n "$image" ] || { "$apt" update -q && image=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }'); }
	(cd "$1" && apt-get download -qq "$image")
	dpkg-deb --fsys-tarfile "$1"/*.deb |
		tar -x -C "$1" --wildcards './boot/vmlinuz*' './lib/modules/*/modules.*' './lib/modules/*/kernel/*'
	rm "$1"/*.deb
	depmod -b "$1" "$(ls "$1"/lib/modules)"
}

# rootfs makes the node's root file system, with the modules of the kernel.
rootfs() {
	local root=$1 kernel=$2 list version=
	list=$(tr -s ' \n' ',' <<<"$packages")
	# shellcheck disable=SC2016 # the hook's $1 is mmdebstrap's to fill in
	mmdebstrap --quiet --mode=root --variant=essential --format=directory --include="${list%,}" \
		--aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt=force-unsafe-io \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/apt/sources.list* "$1"/var/cache/apt/*' \
		"$(release)" "$root" "$sources"
	echo compute-01 >"$root/etc/hostname"
	: >"$root/etc/machine-id" # empty: made at boot, and yet no first boot
	: >"$root/etc/fstab"
	chroot "$root" passwd -d root >/dev/null
	chroot "$root" useradd -u 1001 -m alice
	chroot "$root" useradd -u 1002 -m bob
	rm -f "$root"/etc/ssh/ssh_host_* # keys are each machine's own
	# As on the distributions that the packages are for: rpm's database in its
	# place, and nothing enabled that no preset asks for.
	mkdir -p "$root/etc/rpm" "$root/var/lib/rpm"
	echo '%_dbpath /var/lib/rpm' >"$root/etc/rpm/macros"
	echo 'disable *' >"$root/usr/lib/systemd/system-preset/99-default.preset"
	for unit in $masked; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
	version=$(ls "$kernel/lib/modules")
	mkdir -p "$root/lib/modules/$version"
	dependencies "$kernel" "$version" "$modules" | while read -r file; do
		install -D -m 644 "$file" "$root${file#"$kernel"}"
	done
	cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$version/"
	depmod -b "$root" "$version"
}

# dependencies ROOT VERSION MODULES: files of the modules, in order of loading.
dependencies() {
	for module in $3; do
		modprobe -d "$1" -S "$2" --show-depends "$module" || { say "the kernel has no module $module"; return 1; }
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# initrd is the least that finds the root file system. What the test adds
# below /guest comes to lie in /run.
initrd() {
	local out=$1 root=$2 work version
	work=$(mktemp -d -p "$(dirname "$out")")
	version=$(ls "$root/lib/modules")
	mkdir -p "$work"/{bin,modules,proc,sys,dev,root}
	cp "$(command -v busybox)" "$work/bin/busybox"
	dependencies "$root" "$version" "$initial" | while read -r file; do
		cp "$file" "$work/modules/"
		basename "$file" >>"$work/modules/list"
	done
	cat >"$work/init" <<'INIT'
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in $($B cat /modules/list); do $B insmod /modules/$m; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 300 ]; do $B sleep 0.1; n=$((n+1)); done
$B mount -t ext4 -o noatime /dev/vda /root || { echo "no root file system"; $B poweroff -f; }
$B mount -t tmpfs -o mode=0755,nosuid,nodev run /root/run
[ ! -d /guest ] || $B cp -a /guest/. /root/run/
$B mount --move /dev /root/dev; $B umount /sys; $B umount /proc
exec $B switch_root /root /sbin/init
INIT
	chmod +x "$work/init"
	(cd "$work" && find . | cpio -o -H newc --quiet) >"$out"
	rm -rf "$work"
}

image() {
	mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1,nodiscard,root_owner=0:0 \
		-d "$2" "$1" 1400M
}

# step TEXT FILE COMMAND...: runs it, says how long it took and how big FILE is.
step() {
	local text=$1 file=$2 began=$SECONDS
	shift 2
	say "$text …"
	"$@"
	say "$text: $((SECONDS - began)) s, $(du -sh "$file" | cut -f1)"
}

# build makes everything in $1. It runs as the first process of a namespace.
build() {
	mkdir "$1/kernel"
	step "kernel" "$1/kernel" kernel "$1/kernel"
	step "root file system" "$1/rootfs" rootfs "$1/rootfs" "$1/kernel"
	step "initial ram disk" "$1/initrd.cpio" initrd "$1/initrd.cpio" "$1/rootfs"
	mv "$1"/kernel/boot/vmlinuz-* "$1/vmlinuz"
	rm -rf "$1/kernel"
	step "disk image" "$1/root.ext4" image "$1/root.ext4" "$1/rootfs"
}

# heartbeat says every 30 s that something still happens.
heartbeat() {
	trap 'kill "$pause"; exit' TERM
	local seconds=0
	while sleep 30 & pause=$!; wait "$pause"; do
		seconds=$((seconds + 30))
		say "still at work, $seconds s"
	done
}

lacking() {
	[ "$(id -u)" = 0 ] || { echo "root is needed to make a root file system"; return; }
	[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || { echo "the recipe is for Debian on x86_64"; return; }
	for tool in mmdebstrap mke2fs busybox cpio depmod apt-get unshare; do
		command -v "$tool" >/dev/null || { echo "the command $tool is missing: see internal/e2e/need.sh"; return; }
	done
}

PATH=$PATH:/usr/sbin:/sbin
case ${1-} in
--name)
	name
	exit
	;;
--build)
	build "$2"
	exit
	;;
esac
final=$(name)
[ ! -d "$final" ] || { touch "$final"; exit 0; }
why=$(lacking)
[ -z "$why" ] || { say "cannot be made here: $why"; exit 3; }
mkdir -p "$cache"
exec 9>"$cache/machine.lock"
flock -n 9 || { say "somebody else is making one; waiting"; flock 9; }
[ ! -d "$final" ] || exit 0
say "making a root file system, a kernel and a disk image in $final: one to two minutes, once"
find "$cache" -maxdepth 1 -name 'machine-*' ! -name "*.part" -type d -mtime +14 -exec rm -rf --one-file-system {} +
find "$cache" -maxdepth 1 -name 'machine-*.part' -exec rm -rf --one-file-system {} + # of one that was killed: we hold the lock
mkdir "$final.part"
child='' beat=''
# The namespaces end with unshare, and with them whatever the build has started
# or mounted.
trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null || :
	[ -z "$beat" ] || kill "$beat" 2>/dev/null || :
	rm -rf --one-file-system "$final.part"' EXIT
trap 'exit 130' INT TERM HUP
heartbeat 9>&- &
beat=$!
unshare --mount --pid --fork --kill-child=KILL --mount-proc "$0" --build "$final.part" 9>&- &
child=$!
wait "$child" || {
	code=$?
	child=''
	if ! APT_NOTES=4 "$apt" update -qq -o APT::Update::Error-Mode=any 4>&2 >/dev/null 2>&1; then
		say "cannot be made here: the package sources of this machine do not answer"
		exit 3
	fi
	say "failed; the messages above say at what"
	exit "$code"
}
child=''
mv "$final.part" "$final"
say "made $final: $SECONDS s, $(du -sh "$final" | cut -f1)"
