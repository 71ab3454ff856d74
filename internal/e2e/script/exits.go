package script

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// Exits is the command of scripts for programs that end by themselves. exits CODE
// ARGS...: the program must end with that code. What it writes to standard error
// has the form of every program.
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
		ts.Check(wellFormed(program, code, slices.Collect(strings.Lines(ts.ReadFile("stderr")))))
	}
}

// wellFormed checks the form that all programs have in common: each line starts
// with the program's name, a hint follows its error, and a wrong command line (2)
// has an error.
func wellFormed(program string, code int, lines []string) error {
	before, failed := "", false
	for _, line := range lines {
		text, ok := strings.CutPrefix(line, program+": ")
		if !ok {
			return fmt.Errorf("a line without the program's name: %s", line)
		}
		if strings.HasPrefix(text, "hint: ") && !strings.HasPrefix(before, "error: ") {
			return fmt.Errorf("a hint without an error: %s", line)
		}
		failed = failed || strings.HasPrefix(text, "error: ")
		before = text
	}
	if code == usageCode && !failed {
		return fmt.Errorf("exit code %d without an error: %q", code, lines)
	}
	return nil
}

// usageCode is the exit code of every program for a wrong command line.
const usageCode = 2
