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

// ErrHangs is the cause when a Runner refuses to start a command because an earlier
// one for the same purpose hangs in the kernel.
var ErrHangs = errors.New("an earlier command still hangs")

// Runner runs one command and waits for its end. *Exec is the real one. Others may
// refuse a command with ErrHangs.
type Runner interface {
	Run(ctx context.Context, c Command) (Result, error)
}

// Command is one program call, either Argv or Shell.
type Command struct {
	Argv    []string      // program and arguments, given to the kernel as they are
	Shell   string        // when set: bash -c Shell, and Argv is empty
	Timeout time.Duration // limit from the start; 0 means none
	Env     []string      // KEY=value, added to our own environment
	Capture int           // bytes kept of each output stream; 0 means 64 KiB

	// Program is the file to run. When it is empty, Argv[0] is looked up in PATH.
	Program string
	// Input is what the program reads as standard input; empty means /dev/null.
	Input []byte
	// Report names the environment variable that tells the program the number of a
	// descriptor of its own for its report, which becomes Result.Report. Empty means
	// no such descriptor.
	Report string
}

// String returns the command line as it is shown in errors and logs: the shell
// line unchanged, or the arguments with quotes around those that a shell would
// otherwise change.
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

// Result is what a command left behind. All streams are valid UTF-8 and at most
// as long as the capture limit plus the note about what was left out.
type Result struct {
	Stdout, Stderr string
	Report         string // what came on the descriptor of Command.Report
}

// ExitStatus is the cause inside a CommandError when the program ended by itself
// with a status other than 0.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// CommandError reports a command that failed. Its text becomes the status.error of
// the object, in the format of the older daemon, which programs parse.
type CommandError struct {
	Line, Stdout, Stderr string
	Err                  error // ExitStatus, a signal, the reason why it could not start
	TimedOut             bool  // the time limit or the end of the context stopped it
	PID                  int   // above 0: it survived SIGKILL and was left behind
}

// maxLine bounds the command line inside an error: a profile may hold a huge one.
const maxLine = 8 << 10

func (e *CommandError) Error() string {
	return fmt.Sprintf("command: %s - stderr: %s - stdout: %s - error: %v", text.Clip(e.Line, maxLine), e.Stderr, e.Stdout, e.Err)
}

func (e *CommandError) Unwrap() error { return e.Err }

// exitStatus returns the status that the failed command ended with, or -1.
func exitStatus(err error) int {
	if s, ok := errors.AsType[ExitStatus](err); ok {
		return int(s)
	}
	return -1
}

// survived reports whether err is that of a command that SIGKILL did not end.
func survived(err error) bool {
	c, ok := errors.AsType[*CommandError](err)
	return ok && c.PID > 0
}

// IsBusy reports whether err means that a mount cannot be unmounted because it is in
// use: EBUSY, or umount(8) ended with status 32 and printed that. Commands run with
// LC_ALL=C, so the messages are known.
func IsBusy(err error) bool {
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	c, ok := errors.AsType[*CommandError](err)
	return ok && exitStatus(c) == 32 &&
		(strings.Contains(c.Stderr, "target is busy") || strings.Contains(c.Stderr, "device is busy"))
}

// IsInUse reports whether err means that a block device cannot be deactivated because
// something has it open: EBUSY, or LVM or dmsetup ended with an error and printed that.
// Commands run with LC_ALL=C, so the messages are known.
func IsInUse(err error) bool {
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	c, ok := errors.AsType[*CommandError](err)
	return ok && exitStatus(c) > 0 && slices.ContainsFunc(inUseTexts, func(text string) bool { return strings.Contains(c.Stderr, text) })
}

// inUseTexts are what LVM prints after the name of the volume or group (lvchange, vgchange
// and dmsetup; lvm2 from 2.02 to 2.03).
var inUseTexts = []string{
	" in use.", // Logical volume VG/LV in use. Logical volume VG/LV contains a filesystem in use.
	" is used by another device",
	" open logical volume(s)", // Can't deactivate volume group "VG" with 1 open logical volume(s)
	"Device or resource busy", // device-mapper: remove ioctl on VG-LV (253:3) failed: ...
}
