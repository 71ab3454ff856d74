package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// ContainerTools are the programs that Container needs.
var ContainerTools = []string{"systemd-nspawn"}

var machines atomic.Int64

// enterGroups is a shell script: it moves itself into N control groups and
// becomes the command behind them.
const enterGroups = `n=$1; shift; while [ $n -gt 0 ]; do echo $$ >"$1/cgroup.procs" || exit; shift; n=$((n-1)); done; exec "$@"`

// Container boots systemd in a container. It has the host's network, so the
// API server is where it is for everybody; its files are its own. At the end of
// the test nothing is left of it.
func Container(t testing.TB) *Machine {
	t.Helper()
	Need(t)
	began := time.Now()
	s := stage.New(t)
	m := &Machine{Name: s.Node, Stage: s, t: t, slow: 1, boot: time.Minute, done: make(chan struct{})}
	dir := filepath.Join(s.Dir, fmt.Sprintf("container-%d", machines.Add(1)))
	m.console = dir + ".console"
	if err := m.startContainer(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.stop()
		for range 500 { // what was killed has left its groups before it is gone
			if left, err := s.Leftovers(); len(left) == 0 || err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		s.NothingLeft()
	})
	ctx, cancel := context.WithTimeout(t.Context(), m.boot)
	defer cancel()
	var err error
	if m.link, err = dial(ctx, filepath.Join(dir, "link", "agent.sock")); err == nil {
		err = m.link.awaitBoot(ctx, 1)
	}
	if err != nil {
		t.Fatalf("the container does not boot: %v\n%s", err, m.tail())
	}
	m.settle()
	t.Logf("booted in %.1f s, control groups %s", time.Since(began).Seconds(), strings.Join(m.groups, " "))
	return m
}

func (m *Machine) startContainer(dir string) error {
	l := m.Stage.Lab
	m.root = filepath.Join(dir, "root")
	root, upper, link := m.root, filepath.Join(dir, "upper"), filepath.Join(dir, "link")
	for _, d := range []string{root, upper, link, filepath.Join(dir, "work")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	g, err := newGuest(l, "/usr/local/sbin/e2e-agent", "/run/e2e/agent.sock")
	if err != nil {
		return err
	}
	if err := g.write(filepath.Join(upper, "etc/systemd/system"), filepath.Join(upper, g.at)); err != nil {
		return err
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", filepath.Join(folder, "rootfs"), upper, filepath.Join(dir, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, data); err != nil {
		return fmt.Errorf("lay a container's files over the root file system: %w", err)
	}
	groups, err := newCgroups(fmt.Sprintf("compute-daemons-e2e-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err != nil {
		return errors.Join(err, unix.Unmount(root, unix.MNT_DETACH))
	}
	m.groups = groups
	l.OnClose(groups.remove) // when a signal ends the tests
	console, err := os.Create(m.console)
	if err != nil {
		return err
	}
	args := append([]string{"-c", enterGroups, "sh", strconv.Itoa(len(groups))}, groups...)
	args = append(args, "systemd-nspawn", "-q", "-D", root, "-M", "compute-01", "--boot", "--register=no", "--keep-unit",
		"--capability=all", "--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--bind="+link+":/run/e2e")
	ctx, kill := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Stdout, cmd.Stderr = console, console
	go func() {
		defer close(m.done)
		defer console.Close()
		if err := l.Run(cmd); err != nil && ctx.Err() == nil {
			fmt.Fprintln(console, "systemd-nspawn:", err)
		}
	}()
	m.stop = func() {
		if m.link != nil {
			m.link.conn.Close()
		}
		kill() // what it has started lives on, until its groups are removed
		<-m.done
		if err := errors.Join(groups.remove(), unix.Unmount(root, unix.MNT_DETACH), os.RemoveAll(dir)); err != nil {
			m.t.Error("left behind: ", err)
		}
	}
	return nil
}
