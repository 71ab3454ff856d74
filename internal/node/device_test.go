package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// mknod creates a block device node. It skips the test unless it runs as root.
func mknod(t testing.TB, path string, major, minor uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can create device nodes")
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))))
}

func TestBlockDevice(t *testing.T) {
	n := plant(t, "machine")
	mknod(t, n.Root+"/dev/dm-0", 253, 1)
	for path, why := range map[string]string{
		"/dev/mapper/vg-lv":       "",
		"/dev/dm-0":               "",
		"/dev/mapper/none":        "no block device",
		"/dev/null/below":         "no block device",
		"/dev/mapper/dangling":    "/dev/dm-9: no block device",
		"/dev/mapper/away":        "/etc/passwd is not inside /dev",
		"/dev/mapper/loop1":       "too many symlinks",
		"/dev/null":               "it is a regular file",
		"/dev/mapper":             "it is a directory",
		"/etc/passwd":             "not inside /dev",
		"/dev/mapper/../mapper/x": "not inside /dev",
		"dev/dm-0":                "not inside /dev",
		"/devices/x":              "not inside /dev",
	} {
		d, err := n.BlockDevice(path)
		if why == "" {
			if err != nil || d.String() != "253:1" {
				t.Errorf("%s: %v, %v", path, d, err)
			}
		} else if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
}

func TestBoundDevice(t *testing.T) {
	n := plant(t, "machine")
	mknod(t, n.Root+"/dev/dm-1", 253, 7)
	for path, why := range map[string]string{
		"/mnt/nnf/raw":  "",
		"/mnt/nnf/gone": "the device node /dm-2 was removed",
		"/mnt/nnf/xfs":  "it is a mount of type xfs",
		"/mnt/lost":     "no other mount shows /x of the tmpfs",
	} {
		m, err := n.MountAt(path)
		must(t, err)
		d, err := n.BoundDevice(*m)
		if why == "" {
			if err != nil || d != (Device{253, 7}) {
				t.Errorf("%s: %v, %v", path, d, err)
			}
		} else if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
}

func TestDMName(t *testing.T) {
	n := plant(t, "machine")
	for d, want := range map[Device]string{{253, 1}: "vg-lv", {7, 0}: "", {9, 9}: ""} {
		if got, err := n.DMName(d); err != nil || got != want {
			t.Errorf("%v: %q, %v", d, got, err)
		}
	}
}

// watches returns how many inotify watches this process has.
func watches(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	count := 0
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(to, "inotify") {
			b, _ := os.ReadFile("/proc/self/fdinfo/" + fd.Name())
			count += strings.Count(string(b), "inotify wd:")
		}
	}
	return count
}

// untilWatches polls until the process has count watches.
func untilWatches(t testing.TB, count int) {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%d watches", count), func() bool { return watches(t) >= count })
}

func TestWaitDevice(t *testing.T) {
	fastest := time.Duration(-1)
	for _, tt := range []struct {
		name  string
		steps []func(t *testing.T, dev string) // each runs after the wait has processed the previous one
	}{
		{"node", []func(*testing.T, string){
			func(t *testing.T, dev string) { must(t, os.Mkdir(dev+"/mapper", 0o755)) },
			func(t *testing.T, dev string) { mknod(t, dev+"/mapper/vg-lv", 253, 1) },
		}},
		{"symlink, then node", []func(*testing.T, string){
			func(t *testing.T, dev string) { must(t, os.Mkdir(dev+"/mapper", 0o755)) },
			func(t *testing.T, dev string) { must(t, os.Symlink("../dm-1", dev+"/mapper/vg-lv")) },
			func(t *testing.T, dev string) { mknod(t, dev+"/dm-1", 253, 1) },
		}},
		{"renamed into place", []func(*testing.T, string){
			func(t *testing.T, dev string) {
				must(t, os.Mkdir(dev+"/mapper", 0o755))
				mknod(t, dev+"/tmp", 253, 1)
				must(t, os.Rename(dev+"/tmp", dev+"/mapper/vg-lv"))
			},
		}},
		{"all directories created late", []func(*testing.T, string){
			func(t *testing.T, dev string) { must(t, os.Remove(dev)) },
			func(t *testing.T, dev string) { must(t, os.MkdirAll(dev+"/mapper", 0o755)) },
			func(t *testing.T, dev string) { must(t, os.RemoveAll(dev+"/mapper")) },
			func(t *testing.T, dev string) { mknod(t, dev+"/mapper/vg-lv", 253, 1) },
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asRoot(t)
			n := &Node{Root: t.TempDir()}
			dev := n.Root + "/dev"
			must(t, os.Mkdir(dev, 0o755))
			var err error
			var ended time.Time
			var wg sync.WaitGroup
			wg.Go(func() {
				err = n.WaitDevice(t.Context(), "/dev/mapper/vg-lv", 10*time.Second)
				ended = time.Now()
			})
			untilWatches(t, 1)
			for _, step := range tt.steps {
				step(t, dev)
			}
			made := time.Now()
			wg.Wait()
			if err != nil {
				t.Error(err)
			}
			d := ended.Sub(made)
			if d > busy { // it did not wait for the time limit
				t.Errorf("detected %v after it was created", d)
			}
			if fastest < 0 || d < fastest {
				fastest = d
			}
		})
	}
	// On a busy machine, single cases can take longer.
	if fastest > 20*time.Millisecond {
		t.Errorf("in the fastest case, the device was detected %v after it was created", fastest)
	}
	// The inotify instances are closed in the background.
	wait.Until(t, "the end of the watches", func() bool { return watches(t) == 0 })
}

func TestWaitDeviceEnds(t *testing.T) {
	n := plant(t, "machine")
	bounded(t, time.Second, func() {
		err := n.WaitDevice(t.Context(), "/dev/mapper/late", 50*time.Millisecond)
		if !errors.Is(err, ErrNoDevice) || !strings.HasPrefix(err.Error(), "timeout waiting for device /dev/mapper/late after 50ms") {
			t.Errorf("late: %v", err)
		}
		err = n.WaitDevice(t.Context(), "/dev/null", 20*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "it is a regular file") {
			t.Errorf("another kind of file: %v", err)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.WaitDevice(ctx, "/dev/mapper/late", time.Hour) }()
	untilWatches(t, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := n.WaitDevice(ctx, "/dev/mapper/late", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

func TestWaitDeviceExists(t *testing.T) {
	n := plant(t, "machine")
	mknod(t, n.Root+"/dev/dm-0", 253, 1)
	if err := n.WaitDevice(t.Context(), "/dev/mapper/vg-lv", 0); err != nil {
		t.Error(err)
	}
}

// The wait works without inotify.
func TestPoll(t *testing.T) {
	looks := 0
	err := poll(t.Context(), time.Now().Add(5*time.Second), time.Millisecond, func() (bool, error) { looks++; return looks == 2, nil })
	if err != nil || looks != 2 {
		t.Errorf("%d looks, %v", looks, err)
	}
	if err := poll(t.Context(), time.Now(), time.Hour, func() (bool, error) { return false, nil }); err != ErrTooLate {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := poll(ctx, time.Now().Add(time.Hour), time.Hour, func() (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNearest(t *testing.T) {
	top := t.TempDir()
	must(t, os.WriteFile(top+"/file", nil, 0o644))
	for path, want := range map[string]string{top + "/a/b/c": top, top + "/x": top, top + "/file/x": top, "/nowhere/x": "/"} {
		if got := nearest(path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func BenchmarkWaitDeviceLatency(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("only root can create device nodes")
	}
	n := &Node{Root: b.TempDir()}
	must(b, os.MkdirAll(n.Root+"/dev/mapper", 0o755))
	path := "/dev/mapper/vg-lv"
	for b.Loop() {
		b.StopTimer()
		os.Remove(filepath.Join(n.Root, path))
		wait.Until(b, "the end of the watches", func() bool { return watches(b) == 0 })
		done := make(chan error)
		go func() { done <- n.WaitDevice(context.Background(), path, time.Minute) }()
		untilWatches(b, 1)
		b.StartTimer()
		must(b, unix.Mknod(filepath.Join(n.Root, path), unix.S_IFBLK|0o600, int(unix.Mkdev(253, 1))))
		must(b, <-done)
	}
}

func TestDeviceGone(t *testing.T) {
	root := t.TempDir()
	n := &Node{Root: root}
	if n.DeviceGone("253:7") {
		t.Error("without sysfs, nothing is known")
	}
	for _, dir := range []string{"7:0", "253:1/dm", "253:1/slaves/nvme0n1", "253:2/dm", "253:2/slaves"} {
		if err := os.MkdirAll(filepath.Join(root, "sys/dev/block", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// As after nvme detach-ns.
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "sys/dev/block/253:3/dm"), 0o755), os.MkdirAll(filepath.Join(root, "sys/dev/block/253:3/slaves/nvme0n1"), 0o755),
		os.Symlink("../../../nvme-subsystem/nvme-subsys0/nvme0n2", filepath.Join(root, "sys/dev/block/253:3/slaves/nvme0n2"))); err != nil {
		t.Fatal(err)
	}
	for number, want := range map[string]bool{"7:0": false, "253:1": false, "253:2": true, "253:3": true, "253:7": true, "0:45": false, "": false, "253:7/../../..": false, "8:../x": false, "+8:1": false} {
		if got := n.DeviceGone(number); got != want {
			t.Errorf("%s: %t", number, got)
		}
	}
}
