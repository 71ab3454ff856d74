package node

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// volumeNode returns the machine of testdata/device.txtar. Files below /held and
// /lustre/here are on the device, and /mnt/raw is the device itself. asked is called with
// the text of each link that is inspected.
func volumeNode(t *testing.T, asked func(link string)) *Node {
	n := plant(t, "device")
	mknod(t, n.Root+"/dev/mapper/vg-lv", 253, 3)
	n.statx = func(dir int, name string, st *unix.Statx_t) error {
		b := make([]byte, 200)
		size, err := unix.Readlinkat(dir, name, b)
		if err != nil {
			return err
		}
		link := string(b[:size])
		asked(link)
		*st = unix.Statx_t{Dev_major: 8, Dev_minor: 2, Mode: unix.S_IFREG}
		switch {
		case safepath.Within(link, "/held"), safepath.Within(link, "/lustre/here"):
			st.Dev_major, st.Dev_minor = 253, 3
		case link == "/mnt/raw":
			st.Mode, st.Rdev_major, st.Rdev_minor = unix.S_IFBLK, 253, 3
		case link == "/mnt/other-device":
			st.Mode, st.Rdev_major, st.Rdev_minor = unix.S_IFBLK, 253, 4
		}
		return nil
	}
	return n
}

func TestDeviceHolders(t *testing.T) {
	asRoot(t) // creates a device node
	var remote atomic.Pointer[string]
	n := volumeNode(t, func(link string) {
		if safepath.Within(link, "/far") || safepath.Within(link, "/lustre/here/nfs") {
			remote.Store(&link)
		}
	})
	got, err := n.DeviceHolders(t.Context(), Device{253, 3}, 0)
	must(t, err)
	want := []string{
		"mounted at /mnt/again",
		"mounted at /lustre/here",
		"block device md0 on top of it",
		"device-mapper device vg-snap (dm-5) on top of it",
		"swap file /mnt/again/swap",
		"swap on /dev/mapper/vg-lv",
		"loop device loop0 backed by /dev/mapper/vg-lv",
		"loop device loop1 backed by /mnt/again/image",
		"pid 100 (detached, uid 0): cwd /held/dir",
		"pid 101 (dd, uid 0): device /mnt/raw",
		"pid 102 (writer, uid 0): fd /held/out",
		"pid 103 (mapper, uid 0): mmap /data base",
		"pid 105 (chrooted, uid 0): root /held",
		"pid 106 (runner, uid 0): exe /held/prog",
		"pid 200 (pause, uid 0, mount namespace 4026532001): mounted at /host/x in another namespace",
		"pid 202 (near, uid 0): cwd /lustre/here",
	}
	wantHolders(t, got, want)
	if link := remote.Load(); link != nil {
		t.Errorf("inspected %s on a network file system", *link)
	}
	if got, err := n.DeviceHolders(t.Context(), Device{253, 3}, 5); err != nil || len(got) != 5 {
		t.Errorf("limit 5: %v, %v", got, err)
	}
	if got, err := n.DeviceHolders(t.Context(), Device{253, 99}, 0); err != nil || len(got) != 0 {
		t.Errorf("an unused device: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := n.DeviceHolders(ctx, Device{253, 3}, 0); !errors.Is(err, context.Canceled) || len(got) < 6 {
		t.Errorf("after the time limit: %v, %v", got, err)
	}
}

// A search that waits for a dead server ends at the time limit. Later searches skip that
// process until the server responds, and find the other holders.
func TestDeviceHoldersWithADeadServer(t *testing.T) {
	asRoot(t)
	answer := make(chan struct{})
	var looks atomic.Int32
	n := volumeNode(t, func(link string) {
		if link == "/home" { // of process 104
			looks.Add(1)
			<-answer
		}
	})
	d := Device{253, 3}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	bounded(t, time.Second, func() {
		if _, err := n.DeviceHolders(ctx, d, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first search: %v", err)
		}
	})
	got, err := n.DeviceHolders(t.Context(), d, 0)
	if err != nil || !slices.ContainsFunc(got, func(h Holder) bool { return h.PID == 100 }) {
		t.Errorf("the second search: %v, %v", got, err)
	}
	if got, err := n.DeviceHolders(t.Context(), Device{253, 99}, 0); err == nil || !strings.Contains(err.Error(), "were skipped") {
		t.Errorf("no holder was found and some processes were not examined: %v, %v", got, err)
	}
	if looks.Load() != 1 {
		t.Errorf("%d threads wait for the server, want 1", looks.Load())
	}
	close(answer)
	wait.Until(t, "a complete search after the server responds again", func() bool {
		got, err := n.DeviceHolders(t.Context(), Device{253, 99}, 0)
		return err == nil && len(got) == 0
	})
}

// imageOn creates a loop device on a small ext4 image and returns its path. The node is
// private to the test's namespace, and the device is removed with the test.
func imageOn(t *testing.T, image string) string {
	t.Helper()
	require.Tool(t, "mkfs.ext4", "losetup")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 4<<20))
	run(t, "mkfs.ext4", "-q", "-O", "^has_journal", image)
	return loopOn(t, image)
}

func loopOn(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "-f", "--show", file).Output()
	if err != nil {
		t.Skip("no loop devices here: ", err)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "-d", loop) })
	return loop
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v: %s", argv, err, out)
	}
}

// All ways to keep a real block device open whose file system is not in our mount table.
func TestDeviceHoldersForReal(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	n := &Node{}
	loop := imageOn(t, top+"/image")
	d, err := n.BlockDevice(loop)
	must(t, err)
	elsewhere := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	for _, tt := range []struct {
		name string
		hold func(t *testing.T, target string) (pid int, path string) // before the unmount
		kind string
	}{
		{"no process", nil, ""},
		{"working directory", func(t *testing.T, target string) (int, string) {
			return helper(t, "cwd", nil, target+"/dir").Process.Pid, "/dir"
		}, "cwd"},
		{"working directory in another namespace", func(t *testing.T, target string) (int, string) {
			return helper(t, "cwd", elsewhere, target+"/dir").Process.Pid, ""
		}, "cwd"},
		{"root", func(t *testing.T, target string) (int, string) {
			return helper(t, "chroot", nil, target+"/dir").Process.Pid, "/dir"
		}, "root"},
		{"open file", func(t *testing.T, target string) (int, string) {
			return helper(t, "open", nil, target+"/file").Process.Pid, "/file"
		}, "fd"},
		{"removed file", func(t *testing.T, target string) (int, string) {
			return helper(t, "unlinked", nil, target+"/new").Process.Pid, "/new"
		}, "fd"},
		{"mapped file", func(t *testing.T, target string) (int, string) {
			return helper(t, "mmap", nil, target+"/file").Process.Pid, "/file"
		}, "mmap"},
		{"program", func(t *testing.T, target string) (int, string) {
			b, err := os.ReadFile("/usr/bin/sleep")
			must(t, err)
			must(t, os.WriteFile(target+"/prog", b, 0o755))
			cmd := exec.Command(target+"/prog", "60")
			must(t, cmd.Start())
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			return cmd.Process.Pid, "/prog"
		}, "exe"},
		{"the device itself", func(t *testing.T, target string) (int, string) {
			return helper(t, "open", nil, loop).Process.Pid, loop
		}, "device"},
		{"loop device on a file", func(t *testing.T, target string) (int, string) {
			must(t, os.WriteFile(target+"/inner", make([]byte, 1<<16), 0o600))
			loopOn(t, target+"/inner")
			return 0, "/inner"
		}, "loop"},
		{"loop device on the device", func(t *testing.T, target string) (int, string) {
			loopOn(t, loop)
			return 0, loop
		}, "loop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := filepath.Join(top, "mnt")
			must(t, os.Mkdir(target, 0o755))
			must(t, unix.Mount(loop, target, "ext4", 0, ""))
			must(t, os.MkdirAll(target+"/dir", 0o755))
			must(t, os.WriteFile(target+"/file", []byte("x"), 0o644))
			pid, path := 0, ""
			if tt.hold != nil {
				pid, path = tt.hold(t, target)
			}
			if got, err := n.DeviceHolders(t.Context(), d, 1); err != nil || len(got) != 1 || got[0].String() != "mounted at "+target {
				t.Errorf("mounted here: %v, %v", got, err)
			}
			must(t, unix.Unmount(target, unix.MNT_DETACH))
			must(t, os.Remove(target)) // the kernel removes the mount from other namespaces
			got, err := n.DeviceHolders(t.Context(), d, 0)
			must(t, err)
			if tt.hold == nil {
				if len(got) != 0 {
					t.Errorf("got %v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Kind != tt.kind || got[0].PID != pid || !strings.HasSuffix(got[0].Path, path) {
				t.Errorf("pid %d, %s %s: got %v", pid, tt.kind, path, got)
			}
			if other := strings.Contains(tt.name, "another namespace"); len(got) == 1 && (got[0].Namespace != "") != other {
				t.Errorf("mount namespace %q", got[0].Namespace)
			}
		})
	}
	t.Run("mounted in another namespace", func(t *testing.T) {
		target := filepath.Join(top, "stays")
		must(t, os.Mkdir(target, 0o755))
		must(t, unix.Mount(loop, target, "ext4", 0, ""))
		pid := helper(t, "idle", elsewhere).Process.Pid
		must(t, unix.Unmount(target, 0))
		got, err := n.DeviceHolders(t.Context(), d, 0)
		if err != nil || len(got) != 1 || got[0].PID != pid || got[0].Kind != "other namespace" || got[0].Path != target || got[0].Namespace == "" {
			t.Errorf("pid %d: got %v, %v", pid, got, err)
		}
	})
}
