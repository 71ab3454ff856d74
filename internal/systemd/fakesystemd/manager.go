// Package fakesystemd stands in for systemctl and systemd-sysusers in tests: it
// knows the units below a root folder, enables them by links as systemd does,
// and keeps all that it knows in files there, with a log of its calls, so that
// each call can be a process of its own.
//
// It must not know whose units those are.
package fakesystemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Manager is a service manager for the tree below Root. It is booted when
// Root/run/systemd/system is there.
type Manager struct{ Root string }

// Boot makes systemd run in a new tree.
func (m Manager) Boot() error { return os.MkdirAll(m.path("run/systemd/system"), 0o755) }

// Run is one call of systemctl or systemd-sysusers.
func (m Manager) Run(_ context.Context, name string, args ...string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("it needs to be told what to do")
	}
	verb, units := args[0], args[1:]
	if verb != "show" {
		if err := m.note(name, args); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(m.path(state, "fail."+verb)); err == nil {
		return "", fmt.Errorf("%s %s: told to fail", name, verb)
	}
	if name == "systemd-sysusers" {
		return "", nil
	}
	booted := false
	if _, err := os.Stat(m.path("run/systemd/system")); err == nil {
		booted = true
	}
	do, offline := map[string]func(string) error{
		"start": m.start, "stop": m.stop, "enable": m.enable, "disable": m.disable, "reset-failed": m.reset,
	}[verb], verb == "enable" || verb == "disable"
	switch {
	case !booted && !offline:
		return "", said("System has not been booted with systemd as init system (PID 1). Can't operate.")
	case verb == "daemon-reload":
		return "", nil
	case verb == "show":
		return m.show(units[len(units)-1])
	case do == nil:
		return "", said(fmt.Sprintf("Unknown command verb %s.", verb))
	}
	for _, unit := range units {
		if !strings.Contains(unit, ".") {
			unit += ".service"
		}
		if err := do(unit); err != nil {
			return "", err
		}
	}
	return "", nil
}

// said is what systemctl says.
type said string

func (s said) Error() string { return string(s) }

const state = "run/fakesystemd"

func (m Manager) path(parts ...string) string {
	return filepath.Join(append([]string{m.Root}, parts...)...)
}

func (m Manager) note(name string, args []string) error {
	return m.append("log", strings.TrimPrefix(name, "systemctl")+" "+strings.Join(args, " "))
}

func (m Manager) append(file, line string) error {
	if err := os.MkdirAll(m.path(state), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(m.path(state, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.TrimSpace(line) + "\n")
	return errors.Join(err, f.Close())
}

// Log returns what was asked for, except to show, one call a line, and empties
// the log.
func (m Manager) Log() []string {
	data, _ := os.ReadFile(m.path(state, "log"))
	_ = os.Remove(m.path(state, "log"))
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

// Fail makes one verb fail, or succeed again.
func (m Manager) Fail(verb string, fail bool) error {
	if !fail {
		return os.Remove(m.path(state, "fail."+verb))
	}
	return m.append("fail."+verb, "")
}

// Say is what a daemon reports of itself.
func (m Manager) Say(unit, text string) error { return m.set("status."+unit, text) }

// Be puts a unit into a state: failed as after a crash, activating as before READY.
func (m Manager) Be(unit, active string) error { return m.set("active."+unit, active) }

func (m Manager) set(file, text string) error {
	if err := os.MkdirAll(m.path(state), 0o755); err != nil {
		return err
	}
	return os.WriteFile(m.path(state, file), []byte(text), 0o644)
}

func (m Manager) get(file string) string {
	data, _ := os.ReadFile(m.path(state, file))
	return string(data)
}
