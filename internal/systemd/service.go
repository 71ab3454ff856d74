// Package systemd has the words that make a daemon a service of systemd and look
// after it: install, remove, start, stop and status, as the daemons of earlier
// generations knew them.
//
// It must not know what a daemon does, and it never touches mounts: it gets the
// texts of the units, writes and deletes files below /etc/systemd/system, and
// asks systemctl for the rest.
package systemd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// Where units are: those that install writes, and those of the package.
const (
	ownDir     = "/etc/systemd/system"
	packageDir = "/usr/lib/systemd/system"
)

// Service is one daemon as systemd knows it.
type Service struct {
	Name        string // of the program, and of its unit without .service
	Description string // what the result line calls it
	User        string // whom the unit runs as and who may not exist yet; "": root
	Units       []Unit // the service first
	Version     string // of the program
	Machine     Machine
	// Describe adds to the answer for programs what only the daemon knows. It must
	// change nothing and not need the daemon to run; nil: there is nothing to add.
	Describe func(Start, *Status)
}

// Unit is the file of a unit as it is shipped.
type Unit struct{ Name, Text string }

// Machine is where the service lives. The zero value is this machine.
type Machine struct {
	Root    string                            // put before every path; "" is the real one
	Run     Runner                            // nil: the commands of the PATH
	UID     func() int                        // nil: the effective user of the process
	Program func(name string) (string, error) // nil: the first of the PATH, else the one that runs
}

// Runner runs one command to its end. The error says what the command said.
type Runner func(ctx context.Context, name string, args ...string) (stdout string, err error)

// Verbs are the words, with what each does for the result line; status has none.
var Verbs = map[string]string{
	"install": "Install",
	"remove":  "Removing",
	"start":   "Starting",
	"stop":    "Stopping",
	"status":  "",
}

// do returns what is to be said besides the result.
func (s *Service) do(ctx context.Context, verb string, args []string) (notes []string, err error) {
	if s.uid() != 0 {
		return nil, ErrNotRoot
	}
	switch verb {
	case "install":
		return s.install(ctx, args)
	case "remove":
		return s.remove(ctx)
	case "start":
		return nil, s.start(ctx)
	case "stop":
		return nil, s.stop(ctx)
	}
	return s.status(ctx)
}

func (s *Service) uid() int {
	if s.Machine.UID != nil {
		return s.Machine.UID()
	}
	return os.Geteuid() // the group says nothing about rights
}

func (s *Service) path(dir, unit string) string { return filepath.Join(s.Machine.Root, dir, unit) }

// program is the absolute path for ExecStart=.
func (s *Service) program() (string, error) {
	if s.Machine.Program != nil {
		return s.Machine.Program(s.Name)
	}
	if path, err := exec.LookPath(s.Name); err == nil && filepath.IsAbs(path) {
		return path, nil
	}
	return os.Executable()
}

// booted reports whether systemd runs here, as sd_booted(3) finds out. It does
// not while the image of a node is built.
func (s *Service) booted() bool {
	_, err := os.Lstat(s.path("/run/systemd/system", ""))
	return err == nil
}
