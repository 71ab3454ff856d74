package statedir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning is returned if no process runs a cluster in the directory.
var ErrNotRunning = errors.New("not running")

// Process identifies a process even if its PID is reused. Start is its start time:
// field 22 of /proc/PID/stat, in clock ticks since boot.
type Process struct {
	PID   int
	Start uint64
}

// RecordProcess records this process as the one that runs the cluster.
func (d *Dir) RecordProcess() error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	return WriteFile(d.Path(runtimeDir, "process"), fmt.Appendf(nil, "%d %d\n", os.Getpid(), start))
}

// ReadProcess returns the process that runs a cluster in the directory. It returns
// ErrNotRunning if there is no record or the process has exited.
func ReadProcess(dir string) (Process, error) {
	text, err := os.ReadFile(filepath.Join(dir, runtimeDir, "process"))
	if errors.Is(err, os.ErrNotExist) {
		return Process{}, ErrNotRunning
	}
	if err != nil {
		return Process{}, err
	}
	var p Process
	if _, err := fmt.Sscanf(string(text), "%d %d\n", &p.PID, &p.Start); err != nil || p.PID <= 1 {
		return Process{}, fmt.Errorf("%s: process record is damaged", dir)
	}
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		return Process{}, ErrNotRunning
	}
	return p, nil
}

// Terminate sends SIGTERM to the process and, after the grace period, SIGKILL. It
// returns when the process has exited. It uses a process descriptor, so it cannot
// signal another process with the same PID.
func (p Process) Terminate(grace time.Duration) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		return nil // exited before the descriptor was open
	}
	for _, step := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, 10 * time.Second}} {
		if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d: %w", p.PID, err)
		}
		if ended(fd, step.wait) {
			return nil
		}
	}
	return fmt.Errorf("process %d did not exit after SIGKILL", p.PID)
}

// ended waits for the exit of the process, and reports whether it has exited.
func ended(fd int, wait time.Duration) bool {
	for until := time.Now().Add(wait); ; {
		left := max(0, time.Until(until))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if n > 0 {
			return true
		}
		if !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStartTime(string(stat))
}

// parseStartTime returns field 22. The command name in field 2 may contain spaces and
// brackets, so it counts from the last bracket (proc_pid_stat(5)).
func parseStartTime(stat string) (uint64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("process status has too few fields")
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
