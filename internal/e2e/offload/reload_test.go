package offload

import (
	"os/exec"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// reload gives the daemon another configuration while it runs.
func (s *env) reload(config string) {
	s.t.Helper()
	s.Write("config.toml", []byte(config))
	before := s.reloads()
	s.must(s.d.Hup())
	wait.Within(s.t, patience, "the configuration is read again", func() bool { return s.reloads() > before })
}

func (s *env) reloads() (n int) {
	for _, line := range s.d.Log() {
		if strings.Contains(line.Text, "configuration read again") {
			n++
		}
	}
	return n
}

// run runs the program to its end.
func (s *env) run(args ...string) (output string, code int) {
	s.t.Helper()
	program, err := lab.Binary("nnf-dm")
	s.must(err)
	cmd := exec.CommandContext(s.ctx(), program, args...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}
