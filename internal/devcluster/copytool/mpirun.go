package copytool

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// mpirunValues maps each supported option of mpirun to its number of values. Other
// options are errors.
var mpirunValues = map[string]int{
	"allow-run-as-root": 0, "oversubscribe": 0, "quiet": 0, "q": 0, "v": 0, "verbose": 0,
	"report-bindings": 0, "tag-output": 0, "timestamp-output": 0, "display-map": 0,
	"n": 1, "np": 1, "c": 1, "N": 1, "npernode": 1, "map-by": 1, "bind-to": 1, "rank-by": 1,
	"hostfile": 1, "machinefile": 1, "H": 1, "host": 1, "x": 1, "timeout": 1, "wdir": 1, "wd": 1,
	"mca": 2, "gmca": 2,
}

// mpirun executes the given program once, in place of this process.
func mpirun(args []string, stderr io.Writer) int {
	program, err := mpirunProgram(args)
	if err != nil {
		fmt.Fprintf(stderr, "mpirun: %v\n", err)
		return 1
	}
	path, err := exec.LookPath(program[0])
	if err == nil {
		err = syscall.Exec(path, program, os.Environ())
	}
	fmt.Fprintf(stderr, "mpirun was unable to find or start the program %s: %v\n", program[0], err)
	return 134
}

// mpirunProgram parses the options and returns the program with its arguments.
func mpirunProgram(args []string) ([]string, error) {
	for len(args) > 0 {
		option := args[0]
		if !strings.HasPrefix(option, "-") {
			return args, nil
		}
		args = args[1:]
		if option == "--" {
			break
		}
		name := strings.TrimPrefix(strings.TrimPrefix(option, "-"), "-")
		values, known := mpirunValues[name]
		switch {
		case !known:
			return nil, fmt.Errorf("unrecognized option %s", option)
		case len(args) < values:
			return nil, fmt.Errorf("option %s requires %d values", option, values)
		}
		if name == "hostfile" || name == "machinefile" {
			if _, err := os.ReadFile(args[0]); err != nil {
				return nil, fmt.Errorf("hostfile: %w", err)
			}
		}
		args = args[values:]
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("no program given")
	}
	return args, nil
}
