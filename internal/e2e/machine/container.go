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

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// ContainerTools are the programs that Container needs.
var ContainerTools = []string{"systemd-nspawn"}

var machines atomic.Int64

// enterGroups is a shell script that moves itself into N control groups and then executes the
// command after them.
const enterGroups = `n=$1; shift; while [ $n -gt 0 ]; do echo $$ >"$1/cgroup.procs" || exit; shift; n=$((n-1)); done; exec "$@"`

// Container boots systemd in a container. It uses the network of the host, so it reaches the
// API server at the same address. It has its own files. Everything is removed at the end of
// the test.
func Container(t testing.TB) *Machine {
	t.Helper()
	Need(t)
	return containers(t, fixture.New(t), nil, "compute-01")[0]
}

// Containers boots several containers concurrently. They share the network of the host,
// including the loopback interface. The node of each fixture has the host name of its
// container. The files that prepare returns are created before it boots.
func Containers(t testing.TB, prepare func(s *fixture.Fixture, name string) []File, names ...string) []*Machine {
	t.Helper()
	Need(t)
	list := containers(t, fixture.New(t), prepare, names...)
	for _, m := range list {
		m.Name, m.Fixture = m.host, m.Fixture.As(m.host)
	}
	return list
}

func containers(t testing.TB, s *fixture.Fixture, prepare func(*fixture.Fixture, string) []File, names ...string) []*Machine {
	t.Helper()
	started := time.Now()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = wait.For(ctx, "killed processes to exit", func() (bool, error) { // a process leaves its groups before it has exited
			left, err := s.Leftovers()
			return len(left) == 0 || err != nil, nil
		})
		s.NothingLeft()
	})
	g, err := newGuest(s.Lab, "/usr/local/sbin/e2e-agent", "/run/e2e/agent.sock")
	if err != nil {
		t.Fatal(err)
	}
	list := make([]*Machine, len(names))
	for i, name := range names {
		m := &Machine{Name: s.Node, host: name, Fixture: s, t: t, slow: 1, boot: time.Minute, done: make(chan struct{})}
		dir := filepath.Join(s.Dir, fmt.Sprintf("container-%d", machines.Add(1)))
		m.console, m.Exchange = dir+".console", filepath.Join(dir, "exchange")
		var files []File
		if prepare != nil {
			files = prepare(s, name)
		}
		if err := m.startContainer(dir, g, files); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.stop() })
		list[i] = m
	}
	for _, m := range list {
		if err := m.awaitContainer(); err != nil {
			t.Fatalf("the container %s did not boot: %v\n%s", m.host, err, m.tail())
		}
	}
	for _, m := range list {
		m.settle()
	}
	var groups cgroups
	for _, m := range list {
		groups = append(groups, m.groups...)
	}
	t.Logf("booted %d in %.1f s, control groups %s", len(list), time.Since(started).Seconds(), strings.Join(groups, " "))
	return list
}

func (m *Machine) awaitContainer() (err error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), m.boot)
	defer cancel()
	if m.link, err = dial(ctx, filepath.Join(m.Exchange, "agent.sock")); err != nil {
		return err
	}
	return m.link.awaitBoot(ctx, 1)
}

func (m *Machine) startContainer(dir string, g *guest, files []File) error {
	l := m.Fixture.Lab
	m.root = filepath.Join(dir, "root")
	root, upper := m.root, filepath.Join(dir, "upper")
	for _, d := range []string{root, upper, m.Exchange, filepath.Join(dir, "work")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := g.write(filepath.Join(upper, "etc/systemd/system"), filepath.Join(upper, g.at)); err != nil {
		return err
	}
	for _, f := range append(files, File{"/etc/hostname", 0o644, m.host + "\n"}) {
		if err := f.write(upper); err != nil {
			return err
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", filepath.Join(cache, "rootfs"), upper, filepath.Join(dir, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount the overlay of a container: %w", err)
	}
	groups, err := newCgroups(fmt.Sprintf("compute-daemons-e2e-%d-%d-%s", os.Getpid(), time.Now().UnixNano(), m.host))
	if err != nil {
		return errors.Join(err, unix.Unmount(root, unix.MNT_DETACH))
	}
	m.groups = groups
	l.OnClose(groups.remove) // if a signal stops the tests
	console, err := os.Create(m.console)
	if err != nil {
		return err
	}
	args := append([]string{"-c", enterGroups, "sh", strconv.Itoa(len(groups))}, groups...)
	args = append(args, "systemd-nspawn", "-q", "-D", root, "-M", m.host, "--boot", "--register=no", "--keep-unit",
		"--capability=all", "--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		"--bind="+m.Exchange+":/run/e2e")
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
		kill() // processes of the container run until its groups are removed
		<-m.done
		if err := errors.Join(groups.remove(), unix.Unmount(root, unix.MNT_DETACH), os.RemoveAll(dir)); err != nil {
			m.t.Error("left behind: ", err)
		}
	}
	return nil
}

// cgroups are the control groups of a container, one in each hierarchy that systemd uses. A
// container creates its groups below the group in which it was started, and does not remove
// them.
type cgroups []string

// newCgroups creates a group below our own in each hierarchy.
func newCgroups(name string) (cgroups, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var g cgroups
	for _, dir := range systemdCgroups(string(own), string(mounts)) {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("control groups of a container: %w", err), g.remove())
		}
		g = append(g, dir)
	}
	if len(g) == 0 {
		return nil, errors.New("control groups of a container: neither cgroup2 nor systemd's hierarchy is mounted")
	}
	return g, nil
}

// systemdCgroups returns the directories of our own groups: in the hierarchy of version 2, and
// in the hierarchy of version 1 named systemd.
func systemdCgroups(own, mounts string) (dirs []string) {
	for line := range strings.Lines(own) {
		// 0::/path or 9:name=systemd:/path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || (parts[1] != "" && parts[1] != "name=systemd") {
			continue
		}
		for mount := range strings.Lines(mounts) {
			// 40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
			head, tail, ok := strings.Cut(strings.TrimSpace(mount), " - ")
			at, kind := strings.Fields(head), strings.Fields(tail)
			if !ok || len(at) < 5 || len(kind) < 3 {
				continue
			}
			second := parts[1] == "" && kind[0] == "cgroup2"
			named := parts[1] != "" && kind[0] == "cgroup" && strings.Contains(kind[2], parts[1])
			if second || named {
				dirs = append(dirs, filepath.Join(at[4], strings.TrimPrefix(parts[2], at[3])))
				break
			}
		}
	}
	return dirs
}

// remove kills the processes in the groups, and removes the groups and those below. The kernel
// needs a moment until killed processes have left.
func (g cgroups) remove() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = wait.For(ctx, "empty control groups", func() (bool, error) {
		err = nil
		for _, dir := range g {
			err = errors.Join(err, removeTree(dir))
		}
		return err == nil, nil
	})
	return err
}

// removeTree removes the directories of a tree, whose files belong to the kernel, and kills
// processes that prevent this.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if rm := unix.Rmdir(dir); rm != nil && rm != unix.ENOENT {
		killGroup(dir)
		err = errors.Join(err, fmt.Errorf("remove %s: %w", dir, rm))
	}
	return err
}

// killGroup kills the processes of one group. Processes of a PID namespace that is not visible
// here are listed as 0, and are skipped.
func killGroup(dir string) {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for line := range strings.Lines(string(text)) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 && pid != os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
