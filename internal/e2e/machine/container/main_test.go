// Package container tests the installed daemons on a machine with systemd as its first
// process: packages, units, sandbox, journal, socket activation. Tests that need a separate
// kernel are in package vm.
package container

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, machine.ContainerTools...)) }

// feature is a test of one feature of an installation.
type feature struct {
	name string
	test func(*testing.T, *machine.Machine)
}

// TestInstalled tests the features on one machine. At the start of each test, the daemons are
// installed, configured and stopped, and the journal is empty.
func TestInstalled(t *testing.T) {
	m := node(t)
	for _, f := range slices.Concat(unitFeatures, journalFeatures, credentialFeatures, exampleFeatures, commandFeatures) {
		t.Run(f.name, func(t *testing.T) {
			m := m.For(t)
			defer asInstalled(t, m)
			f.test(t, m)
		})
	}
}

// asInstalled reverts the changes of a test.
func asInstalled(t *testing.T, m *machine.Machine) {
	t.Helper()
	checkJournal(t, m)
	m.Do("systemctl stop clientmountd nnf-dm.socket nnf-dm; rm -rf /etc/systemd/system/{clientmountd.service,nnf-dm.service,nnf-dm.socket}.d /etc/{clientmountd,nnf-dm}/config.d/20-*; " +
		"systemctl daemon-reload; systemctl reset-failed; journalctl --rotate -q; journalctl -q --vacuum-files=1 2>/dev/null")
}

// node returns a machine with both daemons installed and configured, but not started.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	m := machine.Container(t)
	m.Install()
	m.Configure()
	t.Cleanup(func() { checkJournal(t, m) })
	return m
}

// checkJournal logs the journal of a failed test. It checks that systemd has no warnings about our
// units, and that journalctl -x explains every record of the daemons.
func checkJournal(t *testing.T, m *machine.Machine) {
	t.Helper()
	if t.Failed() {
		t.Log(m.Journal("clientmountd -u nnf-dm -u nnf-dm.socket", "-n 100 -o short-precise"))
	}
	for _, line := range m.UnitWarnings() {
		t.Error("systemd warns about one of our units: ", line)
	}
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		known := m.Do("journalctl --list-catalog")
		for line := range strings.Lines(m.Do("journalctl -b -q --no-pager -o json -t " + daemon + ` | jq -r 'select(.MESSAGE_ID) | "\(.MESSAGE_ID) \(.MESSAGE)"' | sort -u`)) {
			if id, _, _ := strings.Cut(line, " "); !strings.Contains(known, id+" ") {
				t.Errorf("the catalogue lacks the message ID of %s: %s", daemon, line)
			}
		}
		if field := unfilled.FindString(m.Do("journalctl -b -q --no-pager -x -t " + daemon)); field != "" {
			t.Errorf("an explanation of %s names a field that its record does not have: %s", daemon, field)
		}
	}
}

// unfilled matches the name of a field in the catalogue, which journalctl replaces with the value
// of the record.
var unfilled = regexp.MustCompile(`.*@[A-Z_]+@.*`)

// has checks that the text contains all parts.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in %s", p, text)
		}
	}
}

// exits runs a script, checks its exit code, and returns its output.
func exits(t *testing.T, m *machine.Machine, code int, script string) string {
	t.Helper()
	out, got, err := m.Run(m.Context(), script)
	if err != nil || got != code {
		t.Errorf("%s: exit code %d, want %d, %v\n%s", script, got, code, err, out)
	}
	return out
}

// environment returns the environment of a unit's process, one variable per line.
func environment(m *machine.Machine, unit string) string {
	return m.Do(`tr '\0' '\n' </proc/`+m.Property(unit, "MainPID")+`/environ`) + "\n"
}
