package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/standin/record"
)

// play misbehaves as told and returns the exit code, 0 when the call may go
// on as usual afterwards.
func play(f *record.Fault, stdout, stderr io.Writer) int {
	if f.KillPID > 0 {
		_ = unix.Kill(f.KillPID, unix.SIGKILL)
	}
	if f.Gate != "" {
		waitFor(f.Gate)
	}
	time.Sleep(f.Delay)
	flood(stdout, f.FloodBytes)
	if f.Report != "" {
		w, err := reportWriter(stdout)
		if err == nil {
			_, err = io.WriteString(w, f.Report)
		}
		if err != nil {
			fmt.Fprintln(stderr, "standin: no report:", err)
		}
	}
	if f.Touch != "" {
		if err := os.WriteFile(f.Touch, nil, 0o644); err != nil {
			fmt.Fprintln(stderr, "standin:", err)
		}
	}
	if f.Stderr != "" {
		fmt.Fprintln(stderr, f.Stderr)
	}
	if f.Grandchild {
		// It inherits the output pipes, leaves the process group and stays.
		child := exec.Command("sleep", "1000000")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			fmt.Fprintln(stderr, "standin: no grandchild:", err)
			return 125
		}
	}
	if f.Hang {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
		for {
			time.Sleep(time.Hour)
		}
	}
	if f.Suicide {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	return f.Exit
}

func flood(w io.Writer, n int64) {
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for ; n > 0; n -= int64(len(line)) {
		if _, err := w.Write(line[:min(n, int64(len(line)))]); err != nil {
			return
		}
	}
}

// waitFor returns when the file exists. It learns of it from the kernel: the
// stand-ins must not be what makes a measurement slow.
func waitFor(path string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return
	}
	buf := make([]byte, 16*(unsafe.Sizeof(unix.InotifyEvent{})+unix.NAME_MAX+1))
	for {
		if _, err := os.Lstat(path); err == nil {
			return
		}
		if _, err := unix.Read(fd, buf); err != nil && err != unix.EINTR {
			return
		}
	}
}
