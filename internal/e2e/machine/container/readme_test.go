package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

// TestReadme runs the commands in README.md whose block names this test: make on this machine, the
// other commands on a node that has the repository at the same path. Between the blocks, it does
// what the text describes. Then it installs nnf-deploy with the commands of the guides.
func TestReadme(t *testing.T) {
	machine.Need(t)
	root := fixture.Root(t)
	blocks := manual.Commands(t, root, "README.md", "internal/e2e/machine/container TestReadme")
	if len(blocks) != 2 {
		t.Fatalf("README.md has %d blocks of commands for this test, want 2", len(blocks))
	}
	install, start := blocks[0], blocks[1]
	build, install, _ := strings.Cut(install, "\n")
	cmd := exec.Command("sh", "-c", build)
	cmd.Dir = root
	// Without the variables of the make that runs the tests, and only for this architecture.
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
	admin, err := os.ReadFile(filepath.Join(m.Fixture.Cluster.Dir, "admin.kubeconfig"))
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
	checkJournal(t, m)

	if out, err := exec.Command("sh", "-c", "mkdir "+inside+"/bin/rpm && cp "+root+"/bin/rpm/*.rpm "+inside+"/bin/rpm").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, page := range []string{"docs/faq.md", "docs/nnf-deploy.md"} {
		block := withoutQuestions(t, 1, manual.Commands(t, root, page, "internal/e2e/machine/container TestReadme"))[0]
		install, ok := strings.CutPrefix(block, "make rpm\n") // a part of make repo
		if !ok {
			t.Fatalf("%s: the first line is not make rpm: %s", page, block)
		}
		m.Do("rpm -e nnf-deploy")
		run(install)
		m.Do("rpm -q nnf-deploy")
	}
}
