package fleet

import (
	"os"
	"path/filepath"
)

// Deploy runs nnf-deploy as the administrator does, with the ssh configuration
// of the fleet.
func (f *Fleet) Deploy(verb string, args ...string) Result {
	f.t.Helper()
	return f.Run(nil, f.program(), f.arguments(verb, args...)...)
}

func (f *Fleet) arguments(verb string, args ...string) []string {
	return append([]string{verb, "--ssh-option", "-F" + f.Config()}, args...)
}

func (f *Fleet) program() string {
	f.t.Helper()
	path := filepath.Join(f.repository(), "bin/nnf-deploy")
	if _, err := os.Stat(path); err != nil {
		f.t.Fatalf("there is no %s: run make build-daemon", path)
	}
	return path
}
