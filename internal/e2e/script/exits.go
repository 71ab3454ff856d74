package script

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// Exits is the command of scripts for programs that end by themselves. exits CODE
// ARGS...: the program must end with that code. Whatever it says on standard error
// begins with its name.
func Exits(program string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: exits CODE ARGS...")
		}
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		// One that waits although it should not must not wait for ever.
		err = ts.Exec("timeout", append([]string{"30", program}, args[1:]...)...)
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		if code != want {
			ts.Fatalf("exit code %d, want %d", code, want)
		}
		for line := range strings.Lines(ts.ReadFile("stderr")) {
			if !strings.HasPrefix(line, program+": ") {
				ts.Fatalf("a line without the program's name: %s", line)
			}
		}
	}
}
