package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// holders measures from the end of umount(8), which says "busy", until the
// daemon has named who is in the way.
func (b *bench) holders() error {
	n, err := b.node()
	if err != nil {
		return err
	}
	release, err := crowd(b.processes)
	if err != nil {
		return err
	}
	defer func() { _ = release() }()
	d, _, err := n.direct()
	if err != nil {
		return err
	}
	const rounds = 5
	for _, c := range []struct {
		kind, name, how string
		target          float64
	}{
		{lab.HoldOpen, "holder found, open file", "umount's end until the daemon's log line, %d processes, the search goes through all of them", 200},
		{lab.HoldMmap, "holder found, only mapped", "the same; mappings cost the kernel most and are looked at last", noTarget},
	} {
		var took []float64
		for i := range rounds {
			v, err := n.search(d, fmt.Sprintf("busy-%s-%d", c.kind, i), c.kind)
			if err != nil {
				return err
			}
			took = append(took, v)
		}
		how := c.how
		if c.target != noTarget {
			how = fmt.Sprintf(how, b.processes)
		}
		b.add(c.name, "ms", c.target, false, took, how)
	}
	if err := n.stop(d); err != nil {
		return err
	}
	return release()
}

func (n *node) search(d *lab.Daemon, name, kind string) (float64, error) {
	if err := n.ask(name); err != nil {
		return 0, err
	}
	if err := n.await(name, mounted); err != nil {
		return 0, err
	}
	h, err := n.Busy(kind, n.path)
	if err != nil {
		return 0, err
	}
	if err := n.ClearLog(); err != nil {
		return 0, err
	}
	if err := n.want(name, "unmounted"); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, 30*time.Second)
	defer cancel()
	line, err := d.WaitLog(ctx, func(l lab.LogLine) bool {
		return l.Fields["msg"] == "mount is in use" && l.Fields["clientmount"] == name
	})
	if err != nil {
		said := d.Log()
		return 0, fmt.Errorf("the holder was not found: %w; the daemon says: %s", err, said[len(said)-1].Text)
	}
	if pid, _ := line.Fields["holder_pid"].(float64); int(pid) != h.PID {
		return 0, fmt.Errorf("the holder is process %d, the daemon says: %s", h.PID, line.Text)
	}
	call, err := n.WaitCall(ctx, func(c lab.Call) bool { return c.Tool == "umount" && c.Exit == 32 })
	if err != nil {
		return 0, err
	}
	if err := h.Release(); err != nil {
		return 0, err
	}
	return milliseconds(line.Time.Sub(call.End)), n.remove(name)
}

// crowd makes many processes that sleep, as cheap as the system has them: forks
// of one shell. They end when their standard input does.
func crowd(n int) (release func() error, err error) {
	cmd := exec.Command("sh", "-c", `exec 3<&0; i=0; while [ $i -lt `+fmt.Sprint(n)+` ]; do (read -r _ <&3) & i=$((i+1)); done; echo ready; wait`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := false
	release = func() error {
		if done {
			return nil
		}
		done = true
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		return cmd.Wait()
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("the shell could not make %d processes: %q", n, line), err, release())
	}
	return release, nil
}
