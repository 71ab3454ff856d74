package script

import (
	"net"
	"os"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// socket PATH MODE: there is a socket with these permissions, and somebody
// listens. ! socket PATH: nothing is there at all.
func socket(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if len(args) != 1 {
			ts.Fatalf("usage: ! socket PATH")
		}
		if _, err := os.Lstat(ts.MkAbs(args[0])); !os.IsNotExist(err) {
			ts.Fatalf("%s is there: %v", args[0], err)
		}
		return
	}
	if len(args) != 2 {
		ts.Fatalf("usage: socket PATH MODE")
	}
	mode, err := strconv.ParseUint(args[1], 8, 32)
	ts.Check(err)
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode() != os.ModeSocket|os.FileMode(mode) {
		ts.Fatalf("%s is %v", args[0], info.Mode())
	}
	c, err := net.Dial("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	c.Close()
}
