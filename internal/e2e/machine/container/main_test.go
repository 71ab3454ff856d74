// Package container tests the installed daemons on a machine with systemd as its first
// process: packages, units, sandbox, journal, socket activation. Tests that need a kernel
// of their own are in package vm.
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

// A promise is a test of something that an installation does.
type promise struct {
	name string
	show func(*testing.T, *machine.Machine)
}

// TestInstalled tests the promises on one machine. Each finds the daemons installed, configured
// and stopped, and the journal empty.
func TestInstalled(t *testing.T) {
	m := node(t)
	for _, p := range slices.Concat(unitPromises, journalPromises, credentialPromises, examplePromises, verbPromises) {
		t.Run(p.name, func(t *testing.T) {
			m := m.For(t)
			defer asInstalled(t, m)
			p.show(t, m)
		})
	}
}

// asInstalled undoes what a promise has changed.
func asInstalled(t *testing.T, m *machine.Machine) {
	t.Helper()
	look(t, m)
	m.Do("systemctl stop clientmountd nnf-dm.socket nnf-dm; rm -rf /etc/systemd/system/{clientmountd.service,nnf-dm.service,nnf-dm.socket}.d /etc/{clientmountd,nnf-dm}/config.d/20-*; " +
		"systemctl daemon-reload; systemctl reset-failed; journalctl --rotate -q; journalctl -q --vacuum-files=1 2>/dev/null")
}

// node is a machine with both daemons installed and configured, none started.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	m := machine.Container(t)
	m.Install()
	m.Configure()
	t.Cleanup(func() { look(t, m) })
	return m
}

// look logs the journal of a failed test. It checks that systemd warns about none of the units,
// and that journalctl -x explains every record of the daemons.
func look(t *testing.T, m *machine.Machine) {
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
				t.Errorf("the catalogue does not have the id of %s's message %s", daemon, line)
			}
		}
		if field := unfilled.FindString(m.Do("journalctl -b -q --no-pager -x -t " + daemon)); field != "" {
			t.Errorf("an explanation of %s names a field that its record does not have: %s", daemon, field)
		}
	}
}

// unfilled matches the name of a field in the catalogue, which journalctl replaces by the value
// of the record.
var unfilled = regexp.MustCompile(`.*@[A-Z_]+@.*`)

// has fails the test unless the text has all parts.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in %s", p, text)
		}
	}
}

// says runs a script that must end with the exit code, and returns its output.
func says(t *testing.T, m *machine.Machine, code int, script string) string {
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
