// Program standin plays the programs of a compute node that a development
// machine does not have: lvs, vgs, lvchange, vgchange, nvme, dlm_tool,
// mount.lustre, mount.gfs2 and mount.xfs (without privileges only). It also
// wraps mount and umount, to log them and to make them fail. Which one it is
// follows from the name that it is called by; its state lies beside it, in
// ../state, so that it needs nothing from the environment.
//
// It must not know the daemons, nor do anything to devices that the
// laboratory did not make.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

func main() {
	tool := filepath.Base(os.Args[0])
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(125)
	}
	if tool == "standin" && len(os.Args) > 2 {
		switch os.Args[1] {
		case "busy":
			os.Exit(busy(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
		case "node":
			os.Exit(nodeNow(os.Args[2:], os.Stderr))
		}
	}
	// A command that is to outlive its daemon must not end by the pipe to it.
	signal.Ignore(unix.SIGPIPE)
	dir := record.Dir(filepath.Join(filepath.Dir(filepath.Dir(self)), "state"))
	os.Exit(run(dir, tool, os.Args[1:], os.Stdout, os.Stderr))
}

// A toolbox is what a stand-in works with.
type toolbox struct {
	dir            record.Dir
	args           []string
	stdout, stderr io.Writer
	now            func() time.Time
}

// fail prints a line the way the LVM tools do and returns the code.
func (t *toolbox) fail(code int, format string, args ...any) int {
	fmt.Fprintf(t.stderr, format+"\n", args...)
	return code
}

var tools = map[string]func(*toolbox) int{
	"lvs":          (*toolbox).lvs,
	"vgs":          (*toolbox).vgs,
	"lvchange":     (*toolbox).lvchange,
	"vgchange":     (*toolbox).vgchange,
	"nvme":         (*toolbox).nvme,
	"dlm_tool":     (*toolbox).dlmTool,
	"mount":        (*toolbox).mount,
	"umount":       (*toolbox).umount,
	"mount.lustre": (*toolbox).mountLustre,
	"mount.gfs2":   (*toolbox).mountGFS2,
	"mount.xfs":    (*toolbox).mountXFS,
}

// run logs the call, plays its fault if there is one, and does its work.
func run(dir record.Dir, tool string, args []string, stdout, stderr io.Writer) int {
	work, ok := tools[tool]
	if !ok {
		fmt.Fprintf(stderr, "standin: %q is not a program that I play\n", tool)
		return 127
	}
	call := record.Call{
		ID: fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()), Tool: tool, Argv: args, Exit: -1,
		Env: environment(), PID: os.Getpid(), PPID: os.Getppid(), Start: time.Now(),
	}
	if err := dir.Append(call); err != nil {
		fmt.Fprintln(stderr, "standin: cannot log the call:", err)
		return 125
	}
	end := func(code int) int {
		call.End, call.Exit = time.Now(), code
		_ = dir.Append(call) // the start is in the log, so the call is not lost
		return code
	}
	fault, err := dir.Take(tool, args)
	if err != nil {
		fmt.Fprintln(stderr, "standin: cannot read the faults:", err)
		return end(125)
	}
	t := &toolbox{dir: dir, args: args, stdout: stdout, stderr: stderr, now: time.Now}
	if fault == nil {
		return end(work(t))
	}
	code := 0
	if fault.After {
		code = work(t)
	}
	if bad := play(fault, stdout, stderr); bad != 0 {
		return end(bad)
	}
	if !fault.After {
		code = work(t)
	}
	return end(code)
}

// environment returns the few variables that tests ask about.
func environment() map[string]string {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		switch {
		case k == "PATH", k == "LC_ALL", k == "LANG", strings.HasPrefix(k, "LVM_"), strings.HasPrefix(k, "NNF_"):
			env[k] = v
		}
	}
	return env
}
