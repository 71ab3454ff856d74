#!/bin/sh
# build.sh [OUTPUT]     builds devcluster and kubectl if necessary, links devcluster to OUTPUT (default: bin/devcluster
#                       of the repository) and kubectl to the same directory
# build.sh --name       prints the path of the cached devcluster, which depends on the sources, go.mod, go.sum and the Go version
# build.sh --test [ARG] builds devcluster, then runs the tests of this module; ARGs go to go test
# build.sh --vet        runs go vet; the first run analyses all of Kubernetes (2 minutes of CPU time)
#
# devcluster contains the Kubernetes API server, so the first build on a machine takes minutes. All commands,
# including vet and tests, must use the same compiler flags. Otherwise everything is compiled again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/compute-daemons
CGO_ENABLED=0
GOFLAGS='-buildvcs=false -trimpath -gcflags=all=-dwarf=false'
GOWORK=off
export CGO_ENABLED GOFLAGS GOWORK
cd "$here"

say() { echo "devcluster build: $*" >&2; }

# name prints the path of the cached program $1; the other arguments are those of find for its sources.
name() {
	program=$1
	shift
	command -v go >/dev/null || { say "the go command is missing; install Go (see go.mod for the version)"; exit 1; }
	sum=$({
		go env GOVERSION GOOS GOARCH
		find "$@" -type f \( -name '*.go' -o -name '*.yaml' -o -name go.mod -o -name go.sum -o -name build.sh \) \
			! -name '*_test.go' ! -path '*/testdata/*' -print | LC_ALL=C sort | xargs sha256sum
	} | sha256sum | cut -c1-16)
	echo "$cache/$program-$sum"
}

# heartbeat prints a message every 30 s while the build runs.
heartbeat() {
	trap 'kill "$pause"; exit' TERM # otherwise sleep keeps our standard error open
	seconds=0
	while sleep 30 & pause=$!; wait "$pause"; do
		seconds=$((seconds + 30))
		say "still compiling, $seconds s"
	done
}

# build builds the package $2 as $1 and calls it $3. The lock makes concurrent builds wait and use the result of the
# first one. An interrupted build leaves no incomplete binary under the final name.
build() {
	mkdir -p "$cache"
	exec 9>"$cache/devcluster.lock"
	flock -n 9 || { say "waiting for another build"; flock 9; }
	[ ! -x "$1" ] || return 0
	say "compiling $3"
	tmp=$1.$$
	heartbeat 9>&- &
	beat=$!
	trap 'kill $beat 2>/dev/null || :; rm -f "$tmp"' EXIT
	trap 'exit 130' INT TERM HUP
	go build -ldflags '-s -w' -o "$tmp" "$2" 9>&-
	mv "$tmp" "$1"
	kill $beat 2>/dev/null || :
	trap - EXIT INT TERM HUP
	find "$cache" -maxdepth 1 \( -name 'devcluster-*' -o -name 'kubectl-*' \) -mtime +30 -delete
	say "built $1"
	exec 9>&-
}

# put links or copies the cached binary $1 to $2.
put() {
	# shellcheck disable=SC3013 # dash, bash and busybox support -ef
	[ ! "$2" -ef "$1" ] || return 0
	mkdir -p "$(dirname "$2")"
	ln -f "$1" "$2" 2>/dev/null || { cp "$1" "$2.$$" && mv "$2.$$" "$2"; }
}

# The name does not depend on kubectl: a change there must not rebuild devcluster.
binary=$(name devcluster . -path ./kubectl -prune -o)
case ${1-} in
--name)
	echo "$binary"
	exit
	;;
--vet)
	exec go vet ./...
	;;
esac
[ -x "$binary" ] || build "$binary" . "the Kubernetes API server and etcd: about 4-5 minutes on 2 cores for the first build, seconds after a change"
touch -c "$binary"
case ${1-} in
--test)
	shift
	DEVCLUSTER=$binary go test -vet=off -ldflags '-s -w' "$@" ./...
	;;
*)
	out=${1:-$here/../../bin/devcluster}
	put "$binary" "$out"
	kubectl=$(name kubectl kubectl go.mod go.sum build.sh)
	[ -x "$kubectl" ] || build "$kubectl" ./kubectl "kubectl: about 20 s on 2 cores for the first build"
	touch -c "$kubectl"
	put "$kubectl" "$(dirname "$out")/kubectl"
	;;
esac
