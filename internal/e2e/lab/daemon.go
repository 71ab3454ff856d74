package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DaemonOptions say how a daemon is started. It gets a small environment of
// its own with the stand-ins first in PATH.
type DaemonOptions struct {
	Binary   string // empty: from CLIENTMOUNTD or the repository's bin folder
	Args     []string
	Env      []string      // added to the environment
	Watchdog time.Duration // WATCHDOG_USEC, when not zero
	NoNotify bool          // no NOTIFY_SOCKET
	Listen   *os.File      // a listening socket that is handed over as systemd does
}

// Daemon is a running daemon, watched.
type Daemon struct {
	PID     int
	Started time.Time // just before its exec

	lab     *Lab
	cmd     *exec.Cmd
	lines   feed[LogLine]
	notices *notices
	done    chan struct{}
	err     error
}

// LogLine is one line of standard error. Fields is nil unless it is JSON.
type LogLine struct {
	Time   time.Time // of arrival
	Text   string
	Fields map[string]any
}

// StartDaemon starts clientmountd.
func (l *Lab) StartDaemon(o DaemonOptions) (*Daemon, error) {
	var err error
	if o.Binary == "" {
		if o.Binary, err = findBinary("CLIENTMOUNTD", "clientmountd", "build"); err != nil {
			return nil, err
		}
	}
	d := &Daemon{lab: l, done: make(chan struct{}), cmd: o.command()}
	d.cmd.Env = append(d.cmd.Env, "PATH="+l.Path(), "HOME=/root", "LANG=C.UTF-8")
	if !o.NoNotify {
		socket := filepath.Join(l.Dir, fmt.Sprintf("notify-%d", time.Now().UnixNano()))
		if d.notices, err = listenNotices(socket); err != nil {
			return nil, err
		}
		d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+socket)
	}
	if o.Watchdog > 0 {
		d.cmd.Env = append(d.cmd.Env, "WATCHDOG_USEC="+strconv.FormatInt(o.Watchdog.Microseconds(), 10))
	}
	d.cmd.Env = append(d.cmd.Env, o.Env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	// A pipe of our own: a child that keeps it open must not delay Wait.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	d.cmd.Stderr, d.cmd.Stdout = write, write
	d.Started = time.Now()
	err = l.start(d.cmd)
	write.Close()
	if err != nil {
		read.Close()
		d.notices.close()
		return nil, err
	}
	d.PID = d.cmd.Process.Pid
	go d.readLog(read)
	go func() {
		d.err = d.cmd.Wait()
		l.alive(d.PID, false)
		d.notices.close() // so that who has seen the end has seen its last words
		close(d.done)
	}()
	l.onClose(func() error { d.Kill9(); return nil })
	return d, nil
}

// command begins the command. Under socket activation only the process itself
// knows the number that it will have (sd_listen_fds(3)), so a shell says it.
func (o DaemonOptions) command() *exec.Cmd {
	if o.Listen == nil {
		return exec.Command(o.Binary, o.Args...)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, o.Binary}, o.Args...)...)
	cmd.Env, cmd.ExtraFiles = []string{"LISTEN_FDS=1"}, []*os.File{o.Listen}
	return cmd
}

func (d *Daemon) readLog(pipe *os.File) {
	defer d.lines.end()
	defer pipe.Close()
	lines := bufio.NewReaderSize(pipe, 64<<10)
	for {
		text, err := lines.ReadString('\n')
		if len(text) > 0 {
			line := LogLine{Time: time.Now(), Text: text}
			_ = json.Unmarshal([]byte(text), &line.Fields) // plain text stays plain
			d.lines.add(line)
		}
		if err != nil {
			return
		}
	}
}

// Log returns what the daemon has written.
func (d *Daemon) Log() []LogLine { return d.lines.all() }

// WaitLog returns the first line that fits, past or future.
func (d *Daemon) WaitLog(ctx context.Context, fits func(LogLine) bool) (LogLine, error) {
	return d.lines.wait(ctx, fits)
}

// Signal sends a signal to the daemon alone.
func (d *Daemon) Signal(s syscall.Signal) error { return d.cmd.Process.Signal(s) }

// Term asks it to end; Hup asks it to reload.
func (d *Daemon) Term() error { return d.Signal(unix.SIGTERM) }

// Hup sends SIGHUP.
func (d *Daemon) Hup() error { return d.Signal(unix.SIGHUP) }

// Kill9 kills the daemon, not its children, and returns when it is gone.
func (d *Daemon) Kill9() {
	_ = d.Signal(unix.SIGKILL)
	<-d.done
}

// Done is closed when the daemon has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// Wait returns the exit code, 128 and the signal's number when killed.
func (d *Daemon) Wait(ctx context.Context) (int, error) {
	select {
	case <-d.done:
	case <-ctx.Done():
		return -1, fmt.Errorf("the daemon still runs: %w", ctx.Err())
	}
	if exit := (*exec.ExitError)(nil); d.err != nil && !errors.As(d.err, &exit) {
		return -1, d.err
	}
	status := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}
