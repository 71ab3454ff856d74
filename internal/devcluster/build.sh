#!/bin/sh
# build.sh [OUTPUT]     builds devcluster once and puts it at OUTPUT (default: bin/devcluster of the repository)
# build.sh --name       prints the cached binary's path, made from the sources, go.mod, go.sum and the Go version
# build.sh --test [ARG] builds, then runs the tests of this module; ARGs go to go test
# build.sh --vet        runs go vet; the first time it reads all of Kubernetes (2 minutes of processor time)
#
# It contains the Kubernetes API server, so the first build on a machine takes minutes. Compiler flags must
# stay the same everywhere, also for vet and tests: others would compile all of it again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/compute-daemons
CGO_ENABLED=0
GOFLAGS='-buildvcs=false -trimpath -gcflags=all=-dwarf=false'
GOWORK=off
export CGO_ENABLED GOFLAGS GOWORK
cd "$here"

say() { echo "devcluster build: $*" >&2; }

name() {
	command -v go >/dev/null || { say "the go command is missing; install Go (see go.mod for the version)"; exit 1; }
	sum=$({
		go env GOVERSION GOOS GOARCH
		find . -type f \( -name '*.go' -o -name '*.yaml' -o -name go.mod -o -name go.sum -o -name build.sh \) \
			! -name '*_test.go' ! -path '*/testdata/*' | LC_ALL=C sort | xargs sha256sum
	} | sha256sum | cut -c1-16)
	echo "$cache/devcluster-$sum"
}

# heartbeat says every 30 s that the build still runs.
heartbeat() {
	trap 'kill "$pause"; exit' TERM # or the sleep would outlive us and hold our standard error
	seconds=0
	while sleep 30 & pause=$!; wait "$pause"; do
		seconds=$((seconds + 30))
		say "still compiling, $seconds s"
	done
}

# build makes $1. The lock lets the second of two builds find the first one's result; a build that is
# interrupted leaves no half binary under the final name.
build() {
	mkdir -p "$cache"
	exec 9>"$cache/devcluster.lock"
	flock -n 9 || { say "another build runs; waiting for it"; flock 9; }
	[ ! -x "$1" ] || return 0
	say "compiling the Kubernetes API server and etcd: about 4-5 minutes on 2 cores the first time, some seconds after a change"
	tmp=$1.$$
	heartbeat 9>&- &
	beat=$!
	trap 'kill $beat 2>/dev/null || :; rm -f "$tmp"' EXIT
	trap 'exit 130' INT TERM HUP
	go build -ldflags '-s -w' -o "$tmp" . 9>&-
	mv "$tmp" "$1"
	kill $beat 2>/dev/null || :
	trap - EXIT INT TERM HUP
	find "$cache" -maxdepth 1 -name 'devcluster-*' -mtime +30 -delete
	say "built $1"
	exec 9>&-
}

binary=$(name)
case ${1-} in
--name)
	echo "$binary"
	exit
	;;
--vet)
	exec go vet ./...
	;;
esac
[ -x "$binary" ] || build "$binary"
touch -c "$binary"
case ${1-} in
--test)
	shift
	DEVCLUSTER=$binary go test -vet=off -ldflags '-s -w' "$@" ./...
	;;
*)
	out=${1:-$here/../../bin/devcluster}
	# shellcheck disable=SC3013 # dash, bash and busybox all know -ef
	[ "$out" -ef "$binary" ] && exit
	mkdir -p "$(dirname "$out")"
	ln -f "$binary" "$out" 2>/dev/null || { cp "$binary" "$out.$$" && mv "$out.$$" "$out"; }
	;;
esac
