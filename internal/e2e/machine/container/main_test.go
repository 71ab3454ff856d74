package container

import (
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, machine.ContainerTools...)) }

// node is a machine with both daemons installed and configured, none started.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	m := machine.Container(t)
	m.Install()
	m.Configure()
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.Journal("clientmountd -u nnf-dm -u nnf-dm.socket", "-n 100 -o short-precise"))
		}
	})
	return m
}

// started is a node whose clientmountd has started.
func started(t *testing.T) *machine.Machine {
	t.Helper()
	m := node(t)
	m.Do("systemctl start clientmountd")
	return m
}

// has fails the test unless the text has all parts.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in %s", p, text)
		}
	}
}

// environment is what a daemon finds, each variable with a newline behind it.
func environment(m *machine.Machine, unit string) string {
	return m.Do(`tr '\0' '\n' </proc/`+m.Property(unit, "MainPID")+`/environ`) + "\n"
}
