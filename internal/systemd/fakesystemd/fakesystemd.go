// Package fakesystemd replaces systemctl and systemd-sysusers in tests. It reads the units
// below a root directory, enables them with links like systemd, and has its state and a
// log of its calls in files there, so that each call can be a separate process.
//
// It must not know the services.
package fakesystemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Manager is a service manager for the tree below Root. It is running if
// Root/run/systemd/system exists.
type Manager struct{ Root string }

// Boot starts systemd in a new tree.
func (m Manager) Boot() error { return os.MkdirAll(m.path("run/systemd/system"), 0o755) }

// Run runs a command of systemctl or systemd-sysusers.
func (m Manager) Run(_ context.Context, name string, args ...string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("no verb given")
	}
	verb, units := args[0], args[1:]
	if verb != "show" {
		if err := m.note(name, args); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(m.path(state, "fail."+verb)); err == nil {
		return "", fmt.Errorf("%s %s: injected failure", name, verb)
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
		return "", message("System has not been booted with systemd as init system (PID 1). Can't operate.")
	case verb == "daemon-reload":
		return "", nil
	case verb == "show":
		return m.show(units[len(units)-1])
	case do == nil:
		return "", message(fmt.Sprintf("Unknown command verb %s.", verb))
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

// message is an error message of systemctl.
type message string

func (s message) Error() string { return string(s) }

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

// Log returns the calls except show, one per line, and clears the log.
func (m Manager) Log() []string {
	data, _ := os.ReadFile(m.path(state, "log"))
	_ = os.Remove(m.path(state, "log"))
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

// Fail makes a verb fail, or succeed again.
func (m Manager) Fail(verb string, fail bool) error {
	if !fail {
		return os.Remove(m.path(state, "fail."+verb))
	}
	return m.append("fail."+verb, "")
}

// SetStatus sets the status text of a unit.
func (m Manager) SetStatus(unit, text string) error { return m.set("status."+unit, text) }

// SetActive sets the ActiveState of a unit: failed after a crash, activating before READY.
func (m Manager) SetActive(unit, active string) error { return m.set("active."+unit, active) }

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

// find returns the file of a unit. /etc overrides the package.
func (m Manager) find(unit string) (path, text string, err error) {
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system"} {
		data, err := os.ReadFile(m.path(dir, unit))
		if err == nil {
			return m.path(dir, unit), string(data), nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
	}
	return "", "", message(fmt.Sprintf("Unit %s not found.", unit))
}

// values returns the values of a key in a unit and its drop-ins. An empty value removes
// the values before it.
func (m Manager) values(unit, key string) (values []string, err error) {
	_, text, err := m.find(unit)
	if err != nil {
		return nil, err
	}
	dropIns, _ := filepath.Glob(m.path("etc/systemd/system", unit+".d", "*.conf"))
	for _, path := range dropIns {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		text += "\n" + string(data)
	}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"=")
		switch {
		case ok && value == "":
			values = nil
		case ok:
			values = append(values, strings.Join(strings.Fields(value), " "))
		}
	}
	return values, nil
}

// start records the command of a service.
func (m Manager) start(unit string) error {
	commands, err := m.values(unit, "ExecStart")
	if err != nil {
		return err
	}
	if strings.HasSuffix(unit, ".service") {
		if len(commands) != 1 {
			return message(fmt.Sprintf("Unit %s has a bad unit file setting.", unit))
		}
		if err := m.append("started", commands[0]); err != nil {
			return err
		}
	}
	return m.set("active."+unit, "active")
}

func (m Manager) stop(unit string) error { return m.set("active."+unit, "inactive") }

func (m Manager) reset(unit string) error { return m.stop(unit) }

// links returns the links that enabling a unit creates.
func (m Manager) links(unit string) (links []string, path string, err error) {
	path, text, err := m.find(unit)
	if err != nil {
		return nil, "", err
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "WantedBy":
			links = append(links, m.path("etc/systemd/system", value+".wants", unit))
		case "Alias":
			links = append(links, m.path("etc/systemd/system", value))
		}
	}
	return links, path, nil
}

func (m Manager) enable(unit string) error {
	links, path, err := m.links(unit)
	if also, _ := m.values(unit, "Also"); len(also) > 0 && err == nil {
		err = m.enable(also[0])
	}
	for _, link := range links {
		if err == nil {
			err = os.MkdirAll(filepath.Dir(link), 0o755)
		}
		if err == nil {
			if err = os.Symlink(path, link); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		}
	}
	return err
}

func (m Manager) disable(unit string) error {
	links, _, err := m.links(unit)
	if also, _ := m.values(unit, "Also"); len(also) > 0 && err == nil {
		err = m.disable(also[0])
	}
	for _, link := range links {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = os.Remove(filepath.Dir(link)) // fails unless it is empty
	}
	return err
}

// show prints the properties that callers use, like systemctl show.
func (m Manager) show(unit string) (string, error) {
	links, path, err := m.links(unit)
	load, file := "loaded", "static"
	if also, _ := m.values(unit, "Also"); len(also) > 0 {
		file = "indirect"
	}
	if err != nil {
		load, file = "not-found", ""
	}
	for _, link := range links {
		file = "disabled"
		if _, err := os.Lstat(link); err == nil {
			file = "enabled"
			break
		}
	}
	if target, err := os.Readlink(m.path("etc/systemd/system", unit)); err == nil && target == "/dev/null" {
		load, file = "masked", "masked"
	}
	active, sub, result, pid := m.get("active."+unit), "dead", "success", "0"
	switch active {
	case "":
		active = "inactive"
	case "active":
		sub, pid = "running", "4711"
		if strings.HasSuffix(unit, ".socket") {
			sub, pid = "listening", ""
		}
	case "activating":
		sub, pid = "start", "4711"
	case "failed":
		sub, result = "failed", "exit-code"
	}
	out := fmt.Sprintf("LoadState=%s\nActiveState=%s\nSubState=%s\nUnitFileState=%s\nResult=%s\nStatusText=%s\n", load, active, sub, file, result, m.get("status."+unit))
	if pid != "" {
		out += "MainPID=" + pid + "\n"
	}
	if err == nil {
		var dropIns []string
		for _, dir := range []string{"usr/lib/systemd/system", "etc/systemd/system"} {
			found, _ := filepath.Glob(m.path(dir, unit+".d", "*.conf"))
			for _, file := range found {
				dropIns = append(dropIns, strings.TrimPrefix(file, m.Root))
			}
		}
		out += "FragmentPath=" + strings.TrimPrefix(path, m.Root) + "\nDropInPaths=" + strings.Join(dropIns, " ") + "\n"
	}
	if commands, _ := m.values(unit, "ExecStart"); len(commands) > 0 {
		program, _, _ := strings.Cut(commands[0], " ")
		out += "ExecStart={ path=" + program + " ; argv[]=" + commands[0] + " ; ignore_errors=no ; pid=0 }\n"
	}
	return out, nil
}
