package systemd

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
)

// start, stop and status in each state of a service.
func TestControl(t *testing.T) {
	n := newNode(t)
	const install = "thing: hint: install the package, or run thing install\n"
	n.does("start", 1, "", "Starting"+failed+"Error:  Service is not installed\n"+install)
	n.does("stop", 1, "", "Stopping"+failed+"Error:  Service is not installed\n"+install)
	n.does("status", 1, "", "Service not installed\nError:  Service is not installed\n"+install)

	n.write("usr/lib/systemd/system/thing.service", serviceText)
	n.write("usr/lib/systemd/system/thing.socket", socketText)
	n.does("stop", 1, "", "Stopping"+failed+"Error:  Service has already been stopped\n")
	n.does("status", 0, "Service is stopped\nthing.service: inactive (dead), disabled\nthing.socket: inactive (dead), disabled\n", "")
	n.does("start", 0, "Starting"+ok, "", "start thing.service thing.socket")
	n.must(n.systemd.SetStatus("thing.service", "1 mount\x1b ready"))
	n.does("status", 0, "Service (pid  4711) is running...\nthing.service: active (running), disabled\nthing.socket: active (listening), disabled\nReported: 1 mount\\x1b ready\n", "")
	n.does("start", 1, "", "Starting"+failed+"Error:  Service is already running\n")
	n.does("stop", 0, "Stopping"+ok, "", "stop thing.service thing.socket")
	n.must(n.systemd.SetActive("thing.service", "failed"))
	n.must(n.systemd.SetStatus("thing.service", ""))
	n.does("status", 0, "Service is stopped\nthing.service: failed (failed), result exit-code, disabled\nthing.socket: inactive (dead), disabled\nSee: journalctl -u thing -n 20\n", "")
	n.does("stop", 1, "", "Stopping"+failed+"Error:  Service has already been stopped\n")
	n.must(n.systemd.Fail("start", true))
	n.does("start", 1, "", "Starting"+failed+"thing: error: systemctl start: injected failure\nthing: hint: for the reason, see journalctl -u thing -n 20\n", "start thing.service thing.socket")
}

// Only the socket is active, as after the service exited because it was idle: start and
// stop have an effect.
func TestControlIdle(t *testing.T) {
	n := newNode(t)
	n.write("usr/lib/systemd/system/thing.service", serviceText)
	n.write("usr/lib/systemd/system/thing.socket", socketText)
	n.must(n.systemd.SetStatus("thing.service", "idle"))
	if _, err := n.systemd.Run(t.Context(), "systemctl", "start", "thing.socket"); err != nil {
		t.Fatal(err)
	}
	n.systemd.Log()
	n.does("stop", 0, "Stopping"+ok, "", "stop thing.socket")
	if _, err := n.systemd.Run(t.Context(), "systemctl", "start", "thing.socket"); err != nil {
		t.Fatal(err)
	}
	n.systemd.Log()
	n.does("start", 0, "Starting"+ok, "", "start thing.service thing.socket")
}

// Before READY the unit is not active, but its process exists and can be stopped.
func TestControlBeforeReady(t *testing.T) {
	n := newNode(t)
	n.Units = n.Units[:1]
	n.write("usr/lib/systemd/system/thing.service", serviceText)
	n.must(n.systemd.SetActive("thing.service", "activating"))
	n.does("status", 0, "Service (pid  4711) is running...\nthing.service: activating (start), disabled\n", "")
	n.does("start", 1, "", "Starting"+failed+"Error:  Service is already running\n")
	n.does("stop", 0, "Stopping"+ok, "", "stop thing.service")
}

// An older unit without a socket is not an error.
func TestControlWithoutSocket(t *testing.T) {
	n := newNode(t)
	n.write("etc/systemd/system/thing.service", olderText)
	n.does("start", 0, "Starting"+ok, "", "start thing.service")
	n.does("status", 0, "Service (pid  4711) is running...\nthing.service: active (running), disabled\n", "")
	n.does("stop", 0, "Stopping"+ok, "", "stop thing.service")
}

// All verbs require root as the effective user.
func TestNotRoot(t *testing.T) {
	n := newNode(t)
	n.Machine.UID = func() int { return 1000 }
	const says = "Error:  You must have root user privileges. Possibly using 'sudo' command should help\n"
	for verb, action := range Verbs {
		if action != "" {
			action += failed
		}
		n.does(verb, 1, "", action+says)
	}
	if have := n.files(); len(have) > 0 {
		t.Errorf("files %q", have)
	}
}

// systemctl is missing, fails without a message, or prints an invalid response.
func TestSystemctlFails(t *testing.T) {
	n := newNode(t)
	n.write("usr/lib/systemd/system/thing.service", serviceText)
	for want, run := range map[string]Runner{
		"thing: error: systemctl show thing.service does not report the state of the unit\n": func(context.Context, string, ...string) (string, error) { return "what?\n", nil },
		"thing: error: it is broken\nthing: error: twice\n":                                  func(context.Context, string, ...string) (string, error) { return "", errors.New("it is broken\ntwice") },
	} {
		n.Machine.Run = run
		n.does("status", 1, "", want)
	}
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	n.Machine.Run = nil
	n.does("status", 1, "", "thing: error: systemctl is not installed\nthing: hint: this command requires systemd; without systemd, run the daemon directly, without a sub-command\n")
	script := func(text string) {
		n.must(executable.Write(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\n"+text)))
	}
	script("echo \"$LC_ALL $1\" >&2; exit 3\n")
	n.Units = n.Units[:1]
	const call = "systemctl show --property=LoadState,ActiveState,SubState,UnitFileState,Result,MainPID,StatusText thing.service: "
	n.does("status", 1, "", "thing: error: "+call+"C show\n")
	script("exit 3\n")
	n.does("status", 1, "", "thing: error: "+call+"exit status 3\n")
	script("echo LoadState=loaded; echo ActiveState=active; echo SubState=running; echo MainPID=0\n")
	n.does("status", 0, "Service is running...\nthing.service: active (running)\n", "")
}
