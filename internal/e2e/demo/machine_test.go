package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// snapshot has the state of the machine that the demo might change.
type snapshot struct {
	mounts string
	loops  []string
}

func takeSnapshot(t *testing.T) snapshot {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return snapshot{string(mounts), loops()}
}

// same fails the test if the state of the machine has changed or processes of the
// demo still exist.
func (s snapshot) same(t *testing.T, d *demo) {
	t.Helper()
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || string(mounts) != s.mounts {
		t.Errorf("mounts before:\n%s\nand after:\n%s", s.mounts, mounts)
	}
	if files, _ := os.ReadDir(d.tmp); len(files) > 0 {
		t.Errorf("files left: %v", files)
	}
	// The kernel removes namespaces and their loop devices after it has reported the
	// exit. Other programs on this machine may have loop devices, too.
	var left []string
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := wait.For(ctx, "the removal of processes and loop devices", func() (bool, error) {
		left = d.processes()
		for _, l := range loops() {
			if !slices.Contains(s.loops, l) && strings.Contains(l, "/lab-") && !alive(l) {
				left = append(left, l)
			}
		}
		return len(left) == 0, nil
	}); err != nil {
		t.Errorf("left behind: %q", left)
	}
}

// loops returns the attached loop devices with their files.
func loops() []string {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for i, f := range files {
		text, _ := os.ReadFile(f)
		files[i] = filepath.Base(filepath.Dir(filepath.Dir(f))) + " " + strings.TrimSpace(string(text))
	}
	return files
}

// alive reports whether a running process, such as another lab, has this loop
// device open.
func alive(loop string) bool {
	name, _, _ := strings.Cut(loop, " ")
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && filepath.Base(to) == name {
			return true
		}
	}
	return false
}

// noteNamespace records the PID namespace that the demo has created, if it has
// already done so. Processes in it may lack the MARK variable.
func (d *demo) noteNamespace() {
	own, _ := os.Readlink("/proc/self/ns/pid")
	for _, pid := range pids() {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, tail, _ := strings.Cut(string(data), ") ")
		f := strings.Fields(tail)
		if len(f) < 2 || f[1] != strconv.Itoa(d.cmd.Process.Pid) {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && ns != own {
			d.namespace = ns
		}
	}
}

// processes returns the processes of this run.
func (d *demo) processes() (list []string) {
	mark := "MARK=" + d.t.Name()
	for _, pid := range pids() {
		if pid == os.Getpid() {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if slices.Contains(strings.Split(string(environ), "\x00"), mark) || ns != "" && ns == d.namespace {
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			list = append(list, fmt.Sprintf("process %d %q", pid, command))
		}
	}
	return list
}

func pids() (list []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// programs returns a directory with all programs, which every user can read.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var compiled = sync.OnceValues(func() (string, error) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		return "", err
	}
	programsDir = dir
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "tmp"), 0o700), os.Chmod(filepath.Join(dir, "tmp"), 0o1777)); err != nil {
		return "", err
	}
	for _, name := range []string{"devcluster", "clientmountd", "clientmountd-failpoints", "nnf-dm", "nnf-dmctl"} {
		if err := place(filepath.Join(root, "bin", name), filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("%w: run make build build-test", err)
		}
	}
	for _, name := range []string{"demo", "faketools"} {
		build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, name), "../"+name)
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
	}
	return dir, nil
})

var programsDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

// place links a file, or copies it to another file system.
func place(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
