package oneprocessor

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestTaken runs itself as a program with different environments.
func TestTaken(t *testing.T) {
	if os.Getenv("SAY") != "" {
		os.Stdout.WriteString(strconv.Itoa(runtime.GOMAXPROCS(0)) + " " + strconv.FormatBool(Taken) + "\n")
		os.Exit(0)
	}
	for environment, want := range map[string]string{"": "1 true", "GOMAXPROCS=": "1 true", "GOMAXPROCS=2": "2 false", "GOMAXPROCS=1": "1 false"} {
		cmd := exec.Command(os.Args[0], "-test.run=TestTaken")
		cmd.Env = []string{"SAY=1", environment}
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q: %s (%v), want %s", environment, got, err, want)
		}
	}
}
