#!/bin/bash
# prepare.sh         creates the machine that the tests boot, once, in the cache
# prepare.sh --name  prints its directory, whose name depends on this script
#
# The directory has rootfs/ for containers, and vmlinuz, initrd.cpio and root.ext4, made from
# rootfs/, for the virtual machine. Distribution and package sources are those of this
# machine.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/compute-daemons
apt=$(dirname "$0")/../apt.sh # apt-get that waits for its locks
sources=${MACHINE_SOURCES:-/etc/apt/sources.list.d/debian.sources}
[ -e "$sources" ] || sources=/etc/apt/sources.list

# The storage and cluster tools of a compute node, Slurm, and what the tests need: dnf, jq, sshd
# and sudo. No python, no editor.
packages="systemd systemd-sysv dbus udev kmod iproute2 procps bsdutils util-linux passwd
 lvm2 lvm2-lockd nvme-cli xfsprogs gfs2-utils dlm-controld corosync e2fsprogs
 rpm dnf curl createrepo-c jq bash-completion openssh-server sudo
 slurmctld slurmd slurm-client munge"

# The modules that are copied, with their dependencies.
modules="virtio_pci virtio_blk virtio_net virtio_console virtio_rng ext4 crc32c_generic
 9p 9pnet_virtio nvme nvme-tcp nvmet nvmet-tcp dm-mod dm-thin-pool dm-snapshot dm-mirror dm-raid
 raid0 raid456 dm-cache dm-integrity xfs gfs2 dlm autofs4 overlay loop sctp configfs"
initial="virtio_pci virtio_blk crc32c_generic ext4"

# Units that a test machine does not need: with them, the boot takes twice as long. The
# distribution's sshd would listen on a port of this machine, because containers share its
# network.
masked="getty.target getty@tty1.service serial-getty@ttyS0.service console-getty.service
 corosync.service dlm.service lvmlockd.service lvmlocks.service lvm2-monitor.service
 nvmf-autoconnect.service nvmefc-boot-connections.service
 e2scrub_reap.service e2scrub_all.timer fstrim.timer dpkg-db-backup.timer apt-daily.timer apt-daily-upgrade.timer
 systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
 systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service
 systemd-logind.service systemd-user-sessions.service systemd-firstboot.service
 dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
 modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
 dnf-makecache.timer uuidd.socket ssh.service ssh.socket
 munge.service slurmctld.service slurmd.service"

say() { echo "machine: $*" >&2; }

name() {
	sum=$({ cat "$0" "$sources"; release; } | sha256sum | cut -c1-16)
	echo "$cache/machine-$sum"
}

release() {
	# shellcheck disable=SC1091 # exists on every machine with systemd
	(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
}

# kernel DIR: unpacks the distribution's kernel to DIR, without installing it.
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

# rootfs DIR KERNEL: creates the root file system of the node, with the modules of the kernel.
rootfs() {
	local root=$1 kernel=$2 list version=
	list=$(tr -s ' \n' ',' <<<"$packages")
	# shellcheck disable=SC2016 # mmdebstrap sets $1 of the hook
	mmdebstrap --quiet --mode=root --variant=essential --format=directory --include="${list%,}" \
		--aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
		--dpkgopt=force-unsafe-io \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/apt/sources.list* "$1"/var/cache/apt/*' \
		"$(release)" "$root" "$sources"
	echo compute-01 >"$root/etc/hostname"
	: >"$root/etc/machine-id" # empty: it is created at boot, without a first boot
	: >"$root/etc/fstab"
	chroot "$root" passwd -d root >/dev/null
	chroot "$root" useradd -u 1001 -m alice
	chroot "$root" useradd -u 1002 -m bob
	rm -f "$root"/etc/ssh/ssh_host_* # each machine gets its own keys
	# As on the distributions that the packages support: the usual path of the rpm database, and
	# only units enabled that a preset enables.
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

# dependencies ROOT VERSION MODULES: prints the files of the modules in loading order.
dependencies() {
	for module in $3; do
		modprobe -d "$1" -S "$2" --show-depends "$module" || { say "the kernel has no module $module"; return 1; }
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# initrd FILE ROOT: creates a minimal initial ram disk, which mounts the root file system and
# copies the files that a test adds below /guest to /run.
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

# step TEXT FILE COMMAND...: runs COMMAND, and prints its duration and the size of FILE.
step() {
	local text=$1 file=$2 started=$SECONDS
	shift 2
	say "$text …"
	"$@"
	say "$text: $((SECONDS - started)) s, $(du -sh "$file" | cut -f1)"
}

# build DIR: creates all files in DIR. It runs as the first process of a PID namespace.
build() {
	mkdir "$1/kernel"
	step "kernel" "$1/kernel" kernel "$1/kernel"
	step "root file system" "$1/rootfs" rootfs "$1/rootfs" "$1/kernel"
	step "initial ram disk" "$1/initrd.cpio" initrd "$1/initrd.cpio" "$1/rootfs"
	mv "$1"/kernel/boot/vmlinuz-* "$1/vmlinuz"
	rm -rf "$1/kernel"
	step "disk image" "$1/root.ext4" image "$1/root.ext4" "$1/rootfs"
}

# heartbeat: prints a line every 30 s.
heartbeat() {
	trap 'kill "$pause"; exit' TERM
	local seconds=0
	while sleep 30 & pause=$!; wait "$pause"; do
		seconds=$((seconds + 30))
		say "still running, $seconds s"
	done
}

# missing: prints why the machine cannot be created here, or nothing.
missing() {
	[ "$(id -u)" = 0 ] || { echo "root is required to create a root file system"; return; }
	[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || { echo "only Debian on x86_64 is supported"; return; }
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
why=$(missing)
[ -z "$why" ] || { say "cannot be created here: $why"; exit 3; }
mkdir -p "$cache"
exec 9>"$cache/machine.lock"
flock -n 9 || { say "another process is creating it; waiting"; flock 9; }
[ ! -d "$final" ] || exit 0
say "creating root file system, kernel and disk image in $final: one to two minutes, once"
find "$cache" -maxdepth 1 -name 'machine-*' ! -name "*.part" -type d -mtime +14 -exec rm -rf --one-file-system {} +
find "$cache" -maxdepth 1 -name 'machine-*.part' -exec rm -rf --one-file-system {} + # of killed runs: we hold the lock
mkdir "$final.part"
child='' beat=''
# The namespaces end with unshare, and with them all processes and mounts of the build.
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
		say "cannot be created here: the package sources of this machine do not answer"
		exit 3
	fi
	say "failed: see the messages above"
	exit "$code"
}
child=''
mv "$final.part" "$final"
say "created $final: $SECONDS s, $(du -sh "$final" | cut -f1)"
