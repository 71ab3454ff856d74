package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// ErrHangs means that a Runner did not start a command because an earlier one for the
// same purpose hangs in the kernel.
var ErrHangs = errors.New("an earlier command still hangs")

// Runner runs one command and waits until it exits. *Exec implements it. Other
// implementations may refuse a command with ErrHangs.
type Runner interface {
	Run(ctx context.Context, c Command) (Result, error)
}

// Command is one program call, either Argv or Shell.
type Command struct {
	Argv    []string      // program and arguments, passed to the kernel unchanged
	Shell   string        // if set: bash -c Shell, and Argv is empty
	Timeout time.Duration // time limit; 0 means no limit
	Env     []string      // KEY=value, added to our own environment
	Capture int           // bytes kept of each output stream; 0 means 64 KiB

	// Program is the file to run. If it is empty, Argv[0] is looked up in PATH.
	Program string
	// Input is the standard input of the program; empty means /dev/null.
	Input []byte
	// Report is the name of an environment variable that contains the number of an
	// additional descriptor. What the program writes there becomes Result.Report. Empty
	// means no additional descriptor.
	Report string
}

// String returns the command line for errors and logs: the shell line unchanged, or the
// arguments with shell quotes where necessary.
func (c Command) String() string {
	if c.Shell != "" {
		return c.Shell
	}
	words := make([]string, len(c.Argv))
	for i, a := range c.Argv {
		words[i] = text.ShellWord(a)
	}
	return strings.Join(words, " ")
}

// Result is the output of a command. All streams are valid UTF-8, and at most as long as
// the capture limit plus the note about omitted bytes.
type Result struct {
	Stdout, Stderr string
	Report         string // what the program wrote to the descriptor of Command.Report
}

// ExitStatus is the cause in a CommandError if the program exited with a status other
// than 0.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// CommandError reports a failed command. Its text becomes part of the status.error of
// the object, in the format of the older daemon, because programs parse it.
type CommandError struct {
	Line, Stdout, Stderr string
	Err                  error // an ExitStatus, a signal, or why the command could not start
	TimedOut             bool  // the command was stopped by its time limit or its context
	PID                  int   // above 0: the process did not exit after SIGKILL
}

// maxLine bounds the command line in an error, because a profile may contain a very long
// one.
const maxLine = 8 << 10

func (e *CommandError) Error() string {
	return fmt.Sprintf("command: %s - stderr: %s - stdout: %s - error: %v", text.Clip(e.Line, maxLine), e.Stderr, e.Stdout, e.Err)
}

func (e *CommandError) Unwrap() error { return e.Err }

// exitStatus returns the exit status of the failed command, or -1.
func exitStatus(err error) int {
	if s, ok := errors.AsType[ExitStatus](err); ok {
		return int(s)
	}
	return -1
}

// survived reports whether err is that of a command that did not exit after SIGKILL.
func survived(err error) bool {
	c, ok := errors.AsType[*CommandError](err)
	return ok && c.PID > 0
}

// IsBusy reports whether err means that a mount cannot be unmounted because it is in use:
// EBUSY, or umount(8) exited with status 32 and a known message. Commands run with LC_ALL=C,
// so the messages are in English.
func IsBusy(err error) bool {
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	c, ok := errors.AsType[*CommandError](err)
	return ok && exitStatus(c) == 32 &&
		(strings.Contains(c.Stderr, "target is busy") || strings.Contains(c.Stderr, "device is busy"))
}

// IsInUse reports whether err means that a block device cannot be deactivated because
// something has it open: EBUSY, or LVM or dmsetup failed with a known message. Commands run
// with LC_ALL=C, so the messages are in English.
func IsInUse(err error) bool {
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	c, ok := errors.AsType[*CommandError](err)
	return ok && exitStatus(c) > 0 && slices.ContainsFunc(inUseTexts, func(text string) bool { return strings.Contains(c.Stderr, text) })
}

// inUseTexts are parts of the messages of lvchange, vgchange and dmsetup (lvm2 2.02 to
// 2.03) about a volume or group in use.
var inUseTexts = []string{
	" in use.", // Logical volume VG/LV in use. Logical volume VG/LV contains a filesystem in use.
	" is used by another device",
	" open logical volume(s)", // Can't deactivate volume group "VG" with 1 open logical volume(s)
	"Device or resource busy", // device-mapper: remove ioctl on VG-LV (253:3) failed: ...
}
