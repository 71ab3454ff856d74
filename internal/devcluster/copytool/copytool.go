// Package copytool stands in for the two programs that a data movement's
// command starts on a rabbit: mpirun, which starts the copier, and dcp of
// mpiFileUtils, which copies a tree and says how far it is. A directory of
// links called mpirun and dcp to one binary makes it both.
//
// It must not know Kubernetes nor data movements: it is told everything by its
// arguments, and the two injected faults by its environment.
package copytool

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Variables of the environment that inject a fault into dcp.
const (
	// RateVariable holds the bytes per second that are copied at most.
	RateVariable = "DEVCLUSTER_DCP_RATE"
	// ExitVariable holds the exit code with which dcp gives up half-way.
	ExitVariable = "DEVCLUSTER_DCP_EXIT"
)

// Names lists the programs.
func Names() []string { return []string{"mpirun", "dcp"} }

// Is tells whether a program was started under one of the names.
func Is(argv0 string) bool {
	switch filepath.Base(argv0) {
	case "mpirun", "dcp":
		return true
	}
	return false
}

// Run is the program that args[0] names; it returns the exit code. A mpirun
// that works does not return: it becomes the program that it starts.
func Run(args []string, stdout, stderr io.Writer) int {
	if err := dieWithParent(); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", args[0], err)
		return 1
	}
	if filepath.Base(args[0]) == "mpirun" {
		return mpirun(args[1:], stderr)
	}
	return dcp(args[1:], stdout, stderr, os.Getenv)
}

// dieWithParent ends this process with whoever started it, as everything on a
// rabbit ends with its container. The kernel watches the starting thread
// (prctl(2)): that of a shell, or a locked one.
func dieWithParent() error {
	runtime.LockOSThread()
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}
