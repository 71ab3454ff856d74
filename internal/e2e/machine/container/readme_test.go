package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// TestReadme runs the commands of README.md whose block names this test: make here, the
// others on a node that has the repository in the same place. In between it does what the
// text says.
func TestReadme(t *testing.T) {
	machine.Need(t)
	root := world.Root(t)
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("<!-- tested by internal/e2e/machine/container TestReadme -->\n```sh\n((?:[^`].*\n)+)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 2 {
		t.Fatalf("README.md has %d blocks of commands for this test, want 2", len(blocks))
	}
	install, start := blocks[0][1], blocks[1][1]
	build, install, _ := strings.Cut(install, "\n")
	cmd := exec.Command("sh", "-c", build)
	cmd.Dir = root
	// Without the variables of the make that runs the tests, and for this architecture.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "ARCHES=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}

	m := machine.Container(t)
	m.PrepareDNF()
	inside := m.Outside(root)
	if err := os.MkdirAll(filepath.Join(inside, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", filepath.Join(root, "bin/repo"), filepath.Join(inside, "bin/repo")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	admin, err := os.ReadFile(filepath.Join(m.World.Cluster.Dir, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	m.Put("/root/.kube/config", 0o600, admin)
	run := func(commands string) {
		t.Helper()
		for line := range strings.Lines(commands) {
			m.Do("export HOME=/root; cd " + root + " && " + line)
		}
	}
	run(install)
	m.NameServer()
	run(start)
	look(t, m)
}
