package node

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// procTree writes the files of processes below a root directory. A nil file is a named pipe, from
// which a read blocks like from a file of /proc whose lock is held.
func procTree(t *testing.T, files map[string][]byte) *Node {
	t.Helper()
	root := t.TempDir()
	for name, data := range files {
		path := filepath.Join(root, "proc", name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if data != nil {
			must(t, os.WriteFile(path, data, 0o644))
			continue
		}
		must(t, unix.Mkfifo(path, 0o600))
		t.Cleanup(func() { // end the reader
			if f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
		})
	}
	return &Node{Root: root}
}

func statLine(pid int, comm, state string, parent int, start string) []byte {
	return fmt.Appendf(nil, "%d (%s) %s %d %d 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %s 0 0 0\n", pid, comm, state, parent, pid, start)
}

func statusOf(uid int, pending string) []byte {
	return fmt.Appendf(nil, "Name:\tx\nUid:\t%d\t%d\t%d\t%d\nSigPnd:\t0000000000000000\nShdPnd:\t%s\n", uid, uid, uid, uid, pending)
}

func TestMarked(t *testing.T) {
	uid := os.Geteuid()
	const none, kill = "0000000000000000", "0000000000000100"
	n := procTree(t, map[string][]byte{
		"uptime": []byte("1000.50 900.00\n"), "version": []byte("not a process"),
		// An umount that hangs although it was killed.
		"100/stat": statLine(100, "umount", "D", 50, "90050"), "100/status": statusOf(uid, kill), "100/wchan": []byte("xfs_log_force"),
		"100/environ": []byte("PATH=/bin\x00MARK=abc-1\x00"), "100/cmdline": []byte("/bin/umount\x00/mnt/nnf/a b\x00"), "100/comm": []byte("umount\n"),
		// A child of a hook, which runs.
		"101/stat": statLine(101, "a) S (b", "S", 100, "100000"), "101/status": statusOf(uid, none), "101/wchan": []byte("0"),
		"101/environ": []byte("MARK=abc-2\x00"), "101/cmdline": []byte("sleep\x0060\x00"), "101/comm": []byte("a) S (b\n"),
		// Another variable, and another user.
		"102/stat": statLine(102, "x", "D", 1, "1"), "102/status": statusOf(uid, none), "102/environ": []byte("NOMARK=abc\x00"),
		"103/stat": statLine(103, "x", "D", 1, "1"), "103/status": statusOf(uid+1, none), "103/environ": []byte("MARK=abc\x00"),
		// Its address space is locked.
		"104/stat": statLine(104, "mount.lustre", "D", 1, "100050"), "104/status": statusOf(uid, none), "104/environ": nil,
		"104/comm": []byte("mount.lustre\n"), "104/wchan": []byte("0"),
		"105/stat": []byte("incomplete"),
		// A service that a hook has started.
		"106/stat": []byte("106 (x) D 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0 0\n"), "106/status": statusOf(uid, none), "106/environ": []byte("MARK=abc-1\x00"),
	})
	got, err := n.Marked(t.Context(), "MARK")
	want := []Marked{
		{PID: 100, Parent: 50, Mark: "abc-1", Program: "umount", Line: "/bin/umount '/mnt/nnf/a b'", Age: 100 * time.Second, Kernel: true, Killed: true, Waits: "xfs_log_force"},
		{PID: 101, Parent: 100, Mark: "abc-2", Program: "sleep", Line: "sleep 60", Age: 500 * time.Millisecond},
		{PID: 104, Parent: 1, Program: "mount.lustre", Line: "mount.lustre", Kernel: true, Unreadable: true},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("have %+v\nwant %+v\n%v", got, want, err)
	}
}

// A process that reads and writes is often in state D, but does not wait in the kernel.
func TestMarkedRuns(t *testing.T) {
	n := procTree(t, map[string][]byte{
		"uptime": []byte("1000.50 900.00\n"), "100/stat": statLine(100, "dd", "D", 50, "90050"), "100/status": statusOf(os.Geteuid(), "0"),
		"100/environ": []byte("MARK=abc-1\x00"), "100/cmdline": []byte("dd\x00"), "100/wchan": []byte("io_schedule"),
	})
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		file := n.kernel("/proc/100/status")
		for i := 0; ; i++ {
			text := fmt.Appendf(statusOf(os.Geteuid(), "0"), "voluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t7\n", i)
			err := os.WriteFile(file+".new", text, 0o600)
			if err == nil {
				err = os.Rename(file+".new", file)
			}
			select {
			case <-end:
				ended <- err
				return
			default:
			}
		}
	}()
	got, err := n.Marked(t.Context(), "MARK")
	close(end)
	must(t, err)
	must(t, <-ended)
	if len(got) != 1 || got[0].Kernel || got[0].Waits != "" {
		t.Errorf("%+v", got)
	}
}

// A command on this machine.
func TestMarkedHere(t *testing.T) {
	leave(t, "NODE_TEST_MARK=marked-1", "command")
	found := func() bool {
		list, err := new(Node).Marked(t.Context(), "NODE_TEST_MARK")
		must(t, err)
		for _, m := range list {
			if m.Mark == "marked-1" && m.Program == "cat" && !m.Kernel && !m.Killed && m.Age < time.Minute {
				return true
			}
		}
		return false
	}
	wait.Until(t, "the command is listed", found)
}

func TestPrograms(t *testing.T) {
	n := procTree(t, map[string][]byte{
		"1/stat": statLine(1, "systemd", "S", 0, "1"), "1/comm": []byte("systemd\n"),
		"7/stat": statLine(7, "dlm_scand", "S", 2, "1"), "7/comm": []byte("dlm_scand\n"), // a kernel thread
		"8/stat": statLine(8, "lvmlockd", "S", 1, "1"), "8/comm": []byte("lvmlockd\n"),
		"9/stat": statLine(9, "gone", "Z", 1, "1"), "9/comm": []byte("gone\n"),
	})
	if got := n.Programs(); len(got) != 2 || !got["systemd"] || !got["lvmlockd"] {
		t.Errorf("%v", got)
	}
}
