package statedir

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func lock(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.run.Close() })
	return d
}

func TestLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "cluster")
	d := lock(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v; want mode 0700", info.Mode(), err)
	}
	if err := d.RecordProcess(); err != nil {
		t.Fatal(err)
	}
	_, err := Lock(path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("second lock: %v; want ErrInUse with our PID", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	lock(t, path)
}

func TestLockRefusesSymlinkAsRuntimeDirectory(t *testing.T) {
	path := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(path, "run")); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); err == nil {
		t.Error("locked through a symlink")
	}
}

func TestSocketPathInLongDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	d := lock(t, path)
	l, err := net.Listen("unix", d.SocketPath("a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill
	c, err := net.Dial("unix", d.SocketPath("a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	if _, err := os.Lstat(filepath.Join(path, "run", "a.sock")); err != nil {
		t.Errorf("the socket is not in the runtime directory: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(path, "run")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPurgeKeepsOtherFiles(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "d")
		d := lock(t, path)
		for _, name := range []string{"etcd/member/wal", "address"} {
			if err := WriteFile(d.Path(name), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if foreign {
			if err := WriteFile(d.Path("notes"), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Purge("etcd", "address", "never-made"); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(path)
		if !foreign && !os.IsNotExist(err) {
			t.Errorf("the empty directory is not removed: %v", err)
		}
		if foreign && (len(left) != 1 || left[0].Name() != "notes") {
			t.Errorf("left: %v; want just notes", left)
		}
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon", "service.token")
	for _, content := range []string{"first, a long one", "2nd"} {
		if err := WriteFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("read %q, %v; want %q", got, err, content)
		}
	}
	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, info.Mode(), err, mode)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("temporary files are left: %v", entries)
	}
	if err := WriteFile(filepath.Join(path, "below-a-file"), nil); err == nil {
		t.Error("no error below a file")
	}
}

func TestParseStartTime(t *testing.T) {
	rest := strings.Repeat("0 ", 18) + "4711 9 9"
	for name, test := range map[string]struct {
		stat string
		want uint64
		fail bool
	}{
		"plain":        {stat: "12 (sleep) S " + rest, want: 4711},
		"odd name":     {stat: "12 (a) S 1 (b c) R " + rest, want: 4711},
		"short":        {stat: "12 (sleep) S 1 2 3", fail: true},
		"empty":        {fail: true},
		"not a number": {stat: "12 (sleep) S " + strings.Repeat("x ", 30), fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStartTime(test.stat)
			if got != test.want || (err != nil) != test.fail {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

func TestReadProcess(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		record string
		want   error
		fail   bool
	}{
		"this process":  {record: fmt.Sprintf("%d %d\n", os.Getpid(), start)},
		"number reused": {record: fmt.Sprintf("%d %d\n", os.Getpid(), start+1), want: ErrNotRunning},
		"init":          {record: "1 1\n", fail: true},
		"group":         {record: "-5 1\n", fail: true},
		"damaged":       {record: "12", fail: true},
		"none":          {want: ErrNotRunning},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if test.record != "" {
				if err := WriteFile(filepath.Join(dir, "run", "process"), []byte(test.record)); err != nil {
					t.Fatal(err)
				}
			}
			p, err := ReadProcess(dir)
			switch {
			case test.want != nil && !errors.Is(err, test.want):
				t.Errorf("error %v; want %v", err, test.want)
			case test.fail && (err == nil || errors.Is(err, ErrNotRunning)):
				t.Errorf("error %v; want an error about the record", err)
			case test.want == nil && !test.fail && (err != nil || p.PID != os.Getpid()):
				t.Errorf("got %v, %v", p, err)
			}
		})
	}
}

func TestTerminate(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		signal string
	}{
		"SIGTERM": {"echo; exec sleep 100", "terminated"},
		"SIGKILL": {"trap '' TERM; echo; while :; do sleep 0.05; done", "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			child := exec.Command("sh", "-c", test.script)
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil { // now the trap is set
				t.Fatal(err)
			}
			start, err := startTime(child.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			p := Process{child.Process.Pid, start}
			other := Process{p.PID, p.Start + 1}
			if err := other.Terminate(time.Millisecond); err != nil {
				t.Error(err)
			}
			if now, err := startTime(p.PID); err != nil || now != start {
				t.Fatal("a process with another start time was signalled")
			}
			if err := p.Terminate(200 * time.Millisecond); err != nil {
				t.Error(err)
			}
			if err := child.Wait(); err == nil || !strings.Contains(err.Error(), test.signal) {
				t.Errorf("exited with %v; want %s", err, test.signal)
			}
			if err := p.Terminate(time.Millisecond); err != nil {
				t.Errorf("after the exit: %v", err)
			}
		})
	}
}
