package node

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests make real mounts, each in a private mount namespace. A tmpfs replaces
// devtmpfs, because bound device nodes look the same in the table.

// tmpfsDir mounts a tmpfs over a directory of the test.
func tmpfsDir(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	must(t, unix.Mount("test", top, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(top, unix.MNT_DETACH) })
	return top
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	must(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
}

func TestRawBindForReal(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	n := &Node{}
	must(t, os.Mkdir(top+"/mapper", 0o755))
	must(t, unix.Mount("tmpfs", top+"/mapper", "tmpfs", 0, ""))
	mknod(t, top+"/mapper/vg-lv", 7, 3)
	target := top + "/mnt/raw"
	created, err := n.MakeFile(target)
	must(t, err)
	bind(t, top+"/mapper/vg-lv", target)

	m, err := n.MountAt(target)
	if err != nil || m == nil || m.Root != "/vg-lv" {
		t.Fatalf("%+v, %v", m, err)
	}
	if d, err := n.BoundDevice(*m); err != nil || d != (Device{7, 3}) {
		t.Errorf("bound to %v, %v", d, err)
	}
	must(t, n.ChownMount(*m, 1234, 4321))
	var st unix.Stat_t
	must(t, unix.Lstat(top+"/mapper/vg-lv", &st))
	if st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("the owner of the node is %d:%d", st.Uid, st.Gid)
	}
	if left, err := n.RemoveTarget(target, created); !IsBusy(err) || len(left) != 2 {
		t.Errorf("removal below a mount: %q, %v", left, err)
	}
	if _, err := n.MakeFile(target); err == nil {
		t.Error("a bound device was treated as an empty file")
	}

	// A second mount on the first one: m is no longer visible.
	must(t, os.WriteFile(top+"/plain", nil, 0o644))
	bind(t, top+"/plain", target)
	if err := n.ChownMount(*m, 1, 1); err == nil || !strings.Contains(err.Error(), "another file system") {
		t.Errorf("changed the owner of another mount: %v", err)
	}
	if over, err := n.MountAt(target); err != nil || over == nil || over.ID == m.ID || over.Root != "/plain" {
		t.Errorf("topmost: %+v, %v", over, err)
	}
	must(t, unix.Unmount(target, 0))

	// The node is removed (deactivation) and created again with another number.
	must(t, os.Remove(top+"/mapper/vg-lv"))
	mknod(t, top+"/mapper/vg-lv", 7, 4)
	m, err = n.MountAt(target)
	if err != nil || m == nil || m.Root != "/vg-lv//deleted" {
		t.Fatalf("%+v, %v", m, err)
	}
	if d, err := n.BoundDevice(*m); !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("bound to %v, %v", d, err)
	}
	must(t, unix.Unmount(target, 0))
	if left, err := n.RemoveTarget(target, created); err != nil || left != nil || !missing(top+"/mnt") {
		t.Errorf("removal: %q, %v", left, err)
	}
}

// The node is read through a mount that is not hidden.
func TestBoundDeviceHidden(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	for _, d := range []string{"/dev", "/dev2", "/cover"} {
		must(t, os.Mkdir(top+d, 0o755))
	}
	must(t, unix.Mount("tmpfs", top+"/dev", "tmpfs", 0, ""))
	mknod(t, top+"/dev/x", 7, 3)
	must(t, os.WriteFile(top+"/raw", nil, 0o644))
	bind(t, top+"/dev/x", top+"/raw")
	must(t, unix.Mount("tmpfs", top+"/dev", "tmpfs", 0, "")) // hides the node
	mknod(t, top+"/dev/x", 7, 9)                             // and contains another one
	n := &Node{}
	m, err := n.MountAt(top + "/raw")
	must(t, err)
	if d, err := n.BoundDevice(*m); !errors.Is(err, ErrNoDevice) {
		t.Errorf("found %v, %v", d, err)
	}
	must(t, unix.Unmount(top+"/dev", 0))
	bind(t, top+"/dev", top+"/dev2")
	must(t, unix.Mount("tmpfs", top+"/dev", "tmpfs", 0, ""))
	mknod(t, top+"/dev/x", 7, 9)
	if d, err := n.BoundDevice(*m); err != nil || d != (Device{7, 3}) {
		t.Errorf("through the second mount: %v, %v", d, err)
	}
}

func TestDirectoryTargetForReal(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	n := &Node{}
	target := top + "/mnt/nnf/a b\\c"
	created, err := n.MakeDirectory(target)
	must(t, err)
	must(t, unix.Mount("so urce", target, "tmpfs", 0, ""))
	m, err := n.MountAt(target)
	if err != nil || m == nil || m.Source != "so urce" || m.Mountpoint != target {
		t.Fatalf("%+v, %v", m, err)
	}
	must(t, n.ChownMount(*m, 1234, 4321))
	if left, err := n.RemoveTarget(target, created); !errors.Is(err, unix.EBUSY) || !IsBusy(err) || len(left) != 3 {
		t.Errorf("removal below a mount: %q, %v", left, err)
	}
	must(t, os.Mkdir(target+"/in", 0o755))
	must(t, unix.Mount("inner", target+"/in", "tmpfs", 0, ""))
	if below, err := n.MountsBelow(target); err != nil || len(below) != 1 || below[0].Source != "inner" {
		t.Errorf("below: %v, %v", below, err)
	}
	must(t, unix.Unmount(target+"/in", 0))
	must(t, unix.Unmount(target, 0))
	var st unix.Stat_t
	must(t, unix.Lstat(target, &st))
	if st.Uid == 1234 {
		t.Error("the owner of the directory below the mount was changed")
	}
	if left, err := n.RemoveTarget(target, created); err != nil || left != nil || !missing(top+"/mnt") {
		t.Errorf("removal: %q, %v", left, err)
	}
}

// The message of umount and the result of Holders, for each kind of holder.
func TestHoldersForReal(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	n := &Node{Exec: &Exec{}}
	target := top + "/mnt"
	must(t, os.Mkdir(target, 0o755))
	for _, tt := range []struct {
		name string
		hold func(t *testing.T) int // returns the pid
		busy bool
		path string
		kind string
	}{
		{"cwd", func(t *testing.T) int { return helper(t, "cwd", nil, target+"/dir").Process.Pid }, true, "/dir", "cwd"},
		{"root", func(t *testing.T) int { return helper(t, "chroot", nil, target+"/dir").Process.Pid }, true, "/dir", "root"},
		{"fd", func(t *testing.T) int { return helper(t, "open", nil, target+"/file").Process.Pid }, true, "/file", "fd"},
		{"deleted fd", func(t *testing.T) int { return helper(t, "unlinked", nil, target+"/new").Process.Pid }, true, "/new", "fd"},
		{"mmap", func(t *testing.T) int { return helper(t, "mmap", nil, target+"/file").Process.Pid }, true, "/file", "mmap"},
		{"exe", func(t *testing.T) int {
			b, err := os.ReadFile("/usr/bin/sleep")
			must(t, err)
			must(t, os.WriteFile(target+"/prog", b, 0o755))
			cmd := exec.Command(target+"/prog", "60")
			must(t, cmd.Start())
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			return cmd.Process.Pid
		}, true, "/prog", "exe"},
		{"nested", func(t *testing.T) int {
			must(t, unix.Mount("nested", target+"/dir", "tmpfs", 0, ""))
			t.Cleanup(func() { unix.Unmount(target+"/dir", unix.MNT_DETACH) })
			return 0
		}, true, "/dir", "mount"},
		{"other namespace", func(t *testing.T) int {
			return helper(t, "idle", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}).Process.Pid
		}, false, "", "other namespace"},
		{"no holder", nil, false, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			must(t, unix.Mount("held", target, "tmpfs", 0, ""))
			defer unix.Unmount(target, unix.MNT_DETACH)
			must(t, os.Mkdir(target+"/dir", 0o755))
			must(t, os.WriteFile(target+"/file", []byte("x"), 0o644))
			m, err := n.MountAt(target)
			must(t, err)
			pid := 0
			if tt.hold != nil {
				pid = tt.hold(t)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			got, err := n.Holders(ctx, *m, 0)
			must(t, err)
			want := slices.IndexFunc(got, func(h Holder) bool {
				return h.Kind == tt.kind && h.PID == pid && h.Path == target+tt.path && h.UID == 0 && (pid == 0 || h.Command != "")
			})
			if tt.hold != nil && (want < 0 || len(got) != 1) || tt.hold == nil && len(got) != 0 {
				t.Errorf("pid %d, got %v", pid, got)
			}
			_, err = n.Exec.Run(ctx, Command{Argv: []string{"umount", target}})
			if IsBusy(err) != tt.busy || !tt.busy && err != nil {
				t.Errorf("umount: %v", err)
			}
		})
	}
}

func init() {
	helpers["idle"] = func([]string) { ready() }
	helpers["cwd"] = func(a []string) { check(os.Chdir(a[0])); ready() }
	helpers["chroot"] = func(a []string) { check(unix.Chroot(a[0])); ready() }
	helpers["open"] = func(a []string) {
		f, err := os.Open(a[0])
		check(err)
		ready()
		f.Close()
	}
	helpers["unlinked"] = func(a []string) {
		f, err := os.Create(a[0])
		check(err)
		check(os.Remove(a[0]))
		ready()
		f.Close()
	}
	helpers["mmap"] = func(a []string) {
		f, err := os.Open(a[0])
		check(err)
		_, err = unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
		check(err)
		check(f.Close())
		ready()
	}
}

func check(err error) {
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// A table that changes continuously is read completely.
func TestMountAtWhileTheTableChanges(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	for i := range 100 { // more than one page of table
		d := filepath.Join(top, strconv.Itoa(i))
		must(t, os.Mkdir(d, 0o755))
		must(t, unix.Mount("m", d, "tmpfs", 0, ""))
	}
	must(t, os.Mkdir(top+"/busy", 0o755))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Mount("m", top+"/busy", "tmpfs", 0, "")
				unix.Unmount(top+"/busy", 0)
			}
		}
	}()
	n := &Node{}
	unstable := 0
	for i := range 500 {
		m, err := n.MountAt(filepath.Join(top, strconv.Itoa(i%100)))
		switch {
		case errors.Is(err, errUnstable):
			unstable++
		case err != nil || m == nil:
			t.Fatalf("%d: %v, %v", i, m, err)
		}
	}
	close(stop)
	<-done
	if unstable > 0 {
		t.Logf("%d of 500 reads failed", unstable)
	}
}
