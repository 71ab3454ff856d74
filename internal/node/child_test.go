package node

import (
	"os"

	"golang.org/x/sys/unix"
)

// childTrouble makes a child of this test binary misbehave, as a test has asked for in
// the environment.
func childTrouble() {
	if !isChild() {
		return
	}
	switch os.Getenv("NODE_TEST_CHILD") {
	case "stop":
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "silent":
		os.Exit(0)
	case "fail":
		os.Stderr.WriteString("no luck\n")
		os.Exit(3)
	}
}
