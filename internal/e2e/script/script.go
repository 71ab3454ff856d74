// Package script is what the test scripts of the daemons' command lines have in
// common: commands that a script may use, and files that it finds.
//
// It must not know what a daemon does.
package script

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/rogpeppe/go-internal/testscript"
)

// Run runs the scripts of testdata with the commands of this package. Each finds
// a token and ca.pem. update writes what is compared.
func Run(t *testing.T, program string, update bool) {
	t.Helper()
	authority := Authority(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for name, data := range map[string][]byte{"ca.pem": authority, "token": []byte("a.b.c\n")} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), data, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "journal" {
				return false, errors.New("unknown condition " + name)
			}
			_, err := os.Stat("/run/systemd/journal/socket")
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"refused": refused(program), "await": await, "signal": signal, "socket": socket,
		},
	})
}

// refused CODE ARGS...: the program must end with that code, say nothing on
// standard output, and on standard error one error besides warnings, with a hint or
// without. The scripts look at the words with stderr and cmp.
func refused(program string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: refused CODE ARGS...")
		}
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		// A daemon that starts although it should not must not run for ever.
		err = ts.Exec("timeout", append([]string{"30", program}, args[1:]...)...)
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) || exit.ExitCode() != want {
			ts.Fatalf("ended with %v, want exit status %d", err, want)
		}
		if out := ts.ReadFile("stdout"); out != "" {
			ts.Fatalf("standard output: %s", out)
		}
		errs := 0
		var said []string
		for line := range strings.Lines(ts.ReadFile("stderr")) {
			if strings.HasPrefix(line, program+": error: ") {
				errs++
			}
			if !strings.Contains(line, "level=WARN") {
				said = append(said, line)
			}
		}
		ts.Check(wellFormed(program, want, said))
		if errs != 1 {
			ts.Fatalf("%d errors, want one", errs)
		}
	}
}

const patience = 30 * time.Second

// await FILE REGEXP: until the file, the log of a daemon in the background,
// has it.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var data []byte
	err = wait.For(ctx, strconv.Quote(args[1]), func() (bool, error) {
		var err error
		data, err = os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && want.Match(data), nil
	})
	if err != nil {
		ts.Fatalf("%v: %s", err, data)
	}
}

// signal NAME: send it to the last process that went into the background.
func signal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	running := ts.BackgroundCmds()
	if neg || len(args) != 1 || signals[args[0]] == nil || len(running) == 0 {
		ts.Fatalf("usage: signal HUP|INT|TERM|KILL, with a process in the background")
	}
	ts.Check(running[len(running)-1].Process.Signal(signals[args[0]]))
}
