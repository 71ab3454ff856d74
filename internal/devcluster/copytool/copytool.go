// Package copytool replaces the two programs that the command of a data movement runs
// on a rabbit: mpirun, and dcp of mpiFileUtils, which copies a tree and reports its
// progress. One binary is both programs, through links named mpirun and dcp.
//
// It must not know Kubernetes or data movements: its input is the arguments and, for
// the two injected faults, the environment.
package copytool

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Environment variables that inject a fault into dcp.
const (
	// RateVariable limits the copy, in bytes per second.
	RateVariable = "DEVCLUSTER_DCP_RATE"
	// ExitVariable makes dcp fail halfway with this exit code.
	ExitVariable = "DEVCLUSTER_DCP_EXIT"
)

// Names returns the names of the programs.
func Names() []string { return []string{"mpirun", "dcp"} }

// Is reports whether argv0 is one of the names.
func Is(argv0 string) bool {
	switch filepath.Base(argv0) {
	case "mpirun", "dcp":
		return true
	}
	return false
}

// Run runs the program args[0] and returns the exit code. mpirun does not return if
// it succeeds: it executes the given program.
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

// dieWithParent makes this process exit with its parent, as all processes on a rabbit
// exit with their container. The kernel watches the thread that started the process
// (prctl(2)): the thread of a shell, or a locked one.
func dieWithParent() error {
	runtime.LockOSThread()
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}
