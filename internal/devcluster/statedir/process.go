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

// ErrNotRunning says that no process runs a cluster on the directory.
var ErrNotRunning = errors.New("not running")

// Process identifies a process beyond the reuse of its number: Start is the
// start time of field 22 in /proc/PID/stat, in clock ticks since boot.
type Process struct {
	PID   int
	Start uint64
}

// RecordProcess notes this process as the one that runs the cluster.
func (d *Dir) RecordProcess() error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	return WriteFile(d.Path(runtimeFolder, "process"), fmt.Appendf(nil, "%d %d\n", os.Getpid(), start))
}

// ReadProcess returns the process that runs a cluster on the directory, or
// ErrNotRunning when there is no record or the process has ended.
func ReadProcess(dir string) (Process, error) {
	text, err := os.ReadFile(filepath.Join(dir, runtimeFolder, "process"))
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

// Terminate asks the process to end and, when it is still there after the
// grace period, ends it. It returns when the process is gone. The signal goes
// through a process descriptor, so it cannot hit a successor of the same number.
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
		return nil // ended before the descriptor was open
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
	return fmt.Errorf("process %d does not end", p.PID)
}

// ended waits for the process behind a descriptor.
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

// parseStartTime takes field 22. The command name in field 2 may hold blanks
// and brackets, so counting begins after the last bracket (proc_pid_stat(5)).
func parseStartTime(stat string) (uint64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("process status has too few fields")
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
