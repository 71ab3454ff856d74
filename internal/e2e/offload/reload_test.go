package offload

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reload gives the daemon another configuration while it runs.
func (s *scene) reload(config string) {
	s.t.Helper()
	s.must(os.WriteFile(filepath.Join(s.dir, "config.toml"), []byte(config), 0o600))
	before := s.reloads()
	s.must(s.d.Hup())
	s.eventually("the configuration is read again", func() bool { return s.reloads() > before })
}

func (s *scene) reloads() (n int) {
	for _, line := range s.d.Log() {
		if strings.Contains(line.Text, "configuration read again") {
			n++
		}
	}
	return n
}

// run runs the program to its end.
func (s *scene) run(args ...string) (output string, code int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx(), binary(s.t), args...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}
