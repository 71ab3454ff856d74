// Package systemd manages a daemon as a systemd service. It implements the service verbs
// install, remove, start, stop and status, with the output of earlier daemons, and quotes
// words for unit files.
//
// It must not know what a daemon does, and it never changes mounts. It gets the texts of
// the units, writes and deletes files below /etc/systemd/system, and runs systemctl for
// everything else.
package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Directories of unit files, systemd.unit(5).
const (
	UnitDirectory    = "/etc/systemd/system"     // for the administrator and "PROGRAM install"
	PackageDirectory = "/usr/lib/systemd/system" // for packages
)

// Service is a daemon as a systemd service.
type Service struct {
	Name        string // name of the program, and of its unit without .service
	Description string // name in the result line
	User        string // user of the unit, created by install if necessary; "": root
	Units       []Unit // the service first
	Version     string // version of the program
	Machine     Machine
	// Describe adds the specific fields of the daemon to a Status. It must change
	// nothing, and must work if the daemon is not running. nil: no fields.
	Describe func(Start, *Status)
}

// Unit is a shipped unit file.
type Unit struct{ Name, Text string }

// Machine is the machine of the service. The zero value is this machine.
type Machine struct {
	Root    string                            // prefix of all paths; "": the real root
	Run     Runner                            // nil: run the command
	UID     func() int                        // nil: effective user of the process
	Program func(name string) (string, error) // nil: the first in PATH, else this executable
}

// Runner runs a command and waits for it. The error contains its standard error.
type Runner func(ctx context.Context, name string, args ...string) (stdout string, err error)

// Verbs maps the service verbs to the action in the result line; status has none.
var Verbs = map[string]string{
	"install": "Install",
	"remove":  "Removing",
	"start":   "Starting",
	"stop":    "Stopping",
	"status":  "",
}

// do runs a verb. It returns notes to print with the result.
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
	return os.Geteuid() // the group is irrelevant
}

func (s *Service) path(dir, unit string) string { return filepath.Join(s.Machine.Root, dir, unit) }

// program returns the absolute path for ExecStart=.
func (s *Service) program() (string, error) {
	if s.Machine.Program != nil {
		return s.Machine.Program(s.Name)
	}
	if path, err := exec.LookPath(s.Name); err == nil && filepath.IsAbs(path) {
		return path, nil
	}
	return os.Executable()
}

// booted reports whether systemd is running, like sd_booted(3). It is not running while
// an image of a node is built.
func (s *Service) booted() bool {
	_, err := os.Lstat(s.path("/run/systemd/system", ""))
	return err == nil
}

// Error is a message that other software may match, so it must not change.
type Error string

func (e Error) Error() string { return string(e) }

// Reasons why a verb is refused. Earlier daemons print the same texts after "Error:  ",
// and scripts match these lines: see Service.Do.
const (
	ErrNotRoot      Error = "You must have root user privileges. Possibly using 'sudo' command should help"
	ErrInstalled    Error = "Service has already been installed"
	ErrNotInstalled Error = "Service is not installed"
	ErrRunning      Error = "Service is already running"
	ErrStopped      Error = "Service has already been stopped"
)

// systemctl runs systemctl.
func (s *Service) systemctl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, "systemctl", args...)
}

func (s *Service) run(ctx context.Context, name string, args ...string) (string, error) {
	run := s.Machine.Run
	if run == nil {
		run = command
	}
	return run(ctx, name, args...)
}

// command is the Runner of this machine. The command has no input, so that it cannot ask
// for a password, and prints English without colours and without a pager.
func command(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch exit := (*exec.ExitError)(nil); {
	case err == nil:
	case errors.Is(err, exec.ErrNotFound):
		err = hint.Add(fmt.Errorf("%s is not installed", name), "this command requires systemd; without systemd, run the daemon directly, without a sub-command")
	case errors.As(err, &exit) && stderr.Len() > 0:
		err = fmt.Errorf("%s %s: %s", name, strings.Join(args, " "), strings.TrimSpace(stderr.String()))
	default:
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return stdout.String(), err
}

// Do runs a verb and returns the exit code: 0, or 1 for an error. It prints a result line,
// on stdout if the verb succeeded, otherwise on stderr with the error below it; status
// prints only its lines. An Error is printed in the form of earlier daemons, which scripts
// match; other errors and all hints have the common form. Colours are only used on
// terminals, and not if NO_COLOR is set.
func (s *Service) Do(ctx context.Context, verb string, args, environ []string, stdout, stderr io.Writer) int {
	notes, err := s.do(ctx, verb, args)
	out, word, colour := stdout, "  OK  ", "32"
	if err != nil {
		out, word, colour = stderr, "FAILED", "31"
	}
	var b strings.Builder
	if action := Verbs[verb]; action != "" {
		if coloured(out, environ) {
			word = "\x1b[" + colour + "m" + word + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s %s:\t\t\t\t\t[%s]\n", action, s.Description, word)
	} else if errors.Is(err, ErrNotInstalled) {
		b.WriteString("Service not installed\n")
	}
	for _, note := range notes {
		b.WriteString(oneLine(note) + "\n")
	}
	if known, ok := errors.AsType[Error](err); ok && err.Error() == known.Error() {
		fmt.Fprintf(&b, "Error:  %s\n", known)
		if next := hint.Of(err); next != "" {
			fmt.Fprintf(&b, "%s: hint: %s\n", s.Name, oneLine(next))
		}
	} else if err != nil {
		hint.Write(&b, "", s.Name, err)
	}
	if _, werr := io.WriteString(out, b.String()); err != nil || werr != nil {
		return 1
	}
	return 0
}

func coloured(w io.Writer, environ []string) bool {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return false
	}
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	return true
}

// oneLine converts a text from outside the program to one safe line.
func oneLine(lines string) string {
	return text.Line(strings.ReplaceAll(strings.TrimSpace(lines), "\n", "; "))
}
