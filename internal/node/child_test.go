package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// childFailure makes a child of this test binary fail in the way that a test has set in
// the environment.
func childFailure() {
	if !isChild() {
		return
	}
	switch os.Getenv("NODE_TEST_CHILD") {
	case "stop":
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	case "silent":
		os.Exit(0)
	case "fail":
		os.Stderr.WriteString("no luck\n")
		os.Exit(3)
	}
}

// counting is an Exec that records its commands.
type counting struct {
	Exec
	mu   sync.Mutex
	runs []Command
}

func (c *counting) Run(ctx context.Context, cmd Command) (Result, error) {
	c.mu.Lock()
	c.runs = append(c.runs, cmd)
	c.mu.Unlock()
	return c.Exec.Run(ctx, cmd)
}

// children returns the operations of the children.
func (c *counting) children() (ops []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.runs {
		ops = append(ops, r.Argv[1])
	}
	c.runs = nil
	return ops
}

// blocking returns a Node on which every file system may block, so that children do all
// its work on mount targets.
func blocking(t testing.TB, limit time.Duration) (*Node, *counting) {
	t.Helper()
	if !safepath.Within(t.TempDir(), "/tmp") {
		t.Skip("the temporary directory is not in /tmp")
	}
	c := &counting{}
	n := withMounts(t, "1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / /tmp rw - lustre 10.0.0.1@tcp:/x rw\n")
	return n.For(Caller{Exec: c, Limit: limit}), c
}

// A child does the same as this process would, including all checks, and its errors keep
// their identity and text.
func TestChildDoesTheSame(t *testing.T) {
	type outcome struct {
		paths []string
		err   error
	}
	for _, tt := range []struct {
		name string
		op   string
		do   func(n *Node, top string) outcome
		is   []error
	}{
		{"make a directory", opMakeDirectory, func(n *Node, top string) outcome {
			p, err := n.MakeDirectory(top + "/a/b")
			return outcome{p, err}
		}, nil},
		{"make a file", opMakeFile, func(n *Node, top string) outcome {
			p, err := n.MakeFile(top + "/f")
			return outcome{p, err}
		}, nil},
		{"what is missing", opMissing, func(n *Node, top string) outcome {
			return outcome{n.MissingTargets(top + "/m/n"), nil}
		}, nil},
		{"remove", opRemoveTarget, func(n *Node, top string) outcome {
			must(t, os.MkdirAll(top+"/made/target", 0o755))
			p, err := n.RemoveTarget(top+"/made/target", []string{top + "/made", top + "/made/target"})
			if !missing(top + "/made") {
				t.Error("not removed")
			}
			return outcome{p, err}
		}, nil},
		{"remove a directory that is not empty", opRemoveTarget, func(n *Node, top string) outcome {
			p, err := n.RemoveTarget(top+"/dir", []string{top + "/dir"})
			return outcome{p, err}
		}, []error{unix.ENOTEMPTY}},
		{"symlink", opMakeDirectory, func(n *Node, top string) outcome {
			p, err := n.MakeDirectory(top + "/link/x")
			return outcome{p, err}
		}, []error{safepath.ErrSymlink}},
		{"unsafe", opMakeDirectory, func(n *Node, top string) outcome {
			p, err := n.MakeDirectory(top + "/open/x")
			return outcome{p, err}
		}, []error{safepath.ErrUnsafe}},
		{"file exists", opMakeFile, func(n *Node, top string) outcome {
			p, err := n.MakeFile(top + "/dir")
			return outcome{p, err}
		}, []error{fs.ErrExist}},
		{"not above", opRemoveTarget, func(n *Node, top string) outcome {
			p, err := n.RemoveTarget(top+"/x", []string{top + "/elsewhere"})
			return outcome{p, err}
		}, []error{safepath.ErrBadPath}},
		{"another mount", opChown, func(n *Node, top string) outcome {
			return outcome{nil, n.ChownMount(Mount{ID: 1 << 30, Mountpoint: top + "/dir"}, 0, 0)}
		}, nil},
		{"owner of a missing mount", opChown, func(n *Node, top string) outcome {
			return outcome{nil, n.ChownMount(mountOf(top+"/none"), 0, 0)}
		}, []error{fs.ErrNotExist, unix.ENOENT}},
		{"owner", opChown, func(n *Node, top string) outcome {
			return outcome{nil, n.ChownMount(mountOf(top+"/dir"), uint32(os.Getuid()), uint32(os.Getgid()))}
		}, nil},
		{"write", opWriteFile, func(n *Node, top string) outcome {
			data := strings.Repeat("rabbit\n", 100_000) // more than fits into a pipe or an argument
			err := n.WriteFileIn(top+"/dir", "file", []byte(data), uint32(os.Getuid()), uint32(os.Getgid()))
			if got, rerr := os.ReadFile(top + "/dir/file"); err == nil && (rerr != nil || string(got) != data) {
				t.Errorf("%d bytes, %v", len(got), rerr)
			}
			return outcome{nil, err}
		}, nil},
		{"write elsewhere", opWriteFile, func(n *Node, top string) outcome {
			return outcome{nil, n.WriteFileIn(top+"/link", "file", []byte("x"), 0, 0)}
		}, []error{unix.ENOTDIR}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := t.TempDir()
			run := func(n *Node) outcome {
				must(t, os.Mkdir(top+"/dir", 0o755))
				must(t, os.WriteFile(top+"/dir/full", nil, 0o644))
				must(t, os.Symlink("dir", top+"/link"))
				must(t, os.Mkdir(top+"/open", 0o755))
				must(t, os.Chmod(top+"/open", 0o777))
				o := tt.do(n, top)
				list, err := filepath.Glob(top + "/*")
				must(t, err)
				for _, p := range list {
					must(t, os.RemoveAll(p))
				}
				return o
			}
			here := run(nonBlocking(t))
			n, c := blocking(t, time.Minute)
			there := run(n)
			if ops := c.children(); !slices.Equal(ops, []string{tt.op}) {
				t.Fatalf("children: %q", ops)
			}
			if !slices.Equal(here.paths, there.paths) {
				t.Errorf("here %q, in a child %q", here.paths, there.paths)
			}
			if (here.err == nil) != (there.err == nil) || here.err != nil && here.err.Error() != there.err.Error() {
				t.Errorf("here %v, in a child %v", here.err, there.err)
			}
			for _, is := range tt.is {
				if !errors.Is(here.err, is) || !errors.Is(there.err, is) {
					t.Errorf("not %v: here %v, in a child %v", is, here.err, there.err)
				}
			}
			if len(tt.is) == 0 && tt.name != "another mount" && here.err != nil {
				t.Error(here.err)
			}
		})
	}
}

// nonBlocking returns a Node on which no mount may block.
func nonBlocking(t testing.TB) *Node { return withMounts(t, "1 0 0:1 / / rw - ext4 /dev/sda rw\n") }

// mayBlock uses only the mount table.
func TestMayBlock(t *testing.T) {
	n := withMounts(t, `1 0 0:1 / / rw - nfs server:/root rw
2 1 0:2 / /mnt rw - tmpfs tmpfs rw
3 2 0:3 / /mnt/lustre rw - lustre 10.0.0.1@tcp:/x rw
4 3 0:4 / /mnt/lustre/job/tmp rw - tmpfs tmpfs rw
5 2 259:7 / /mnt/xfs rw - xfs /dev/mapper/vg-lv rw
6 2 0:5 /dm-7 /mnt/raw rw - devtmpfs devtmpfs rw
`)
	for path, want := range map[string]bool{
		"/mnt/nnf/a": false, "/mnt/lustre2/a": false, "/opt/a": false, "/mnt/raw": false,
		"/mnt/lustre": true, "/mnt/lustre/a": true, "/mnt/lustre/job/tmp/a": true, "/mnt/xfs": true, "/mnt/xfs/a/b": true,
	} {
		if got := n.mayBlock(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if !(&Node{Root: t.TempDir()}).mayBlock("/mnt/a") {
		t.Error("without a mount table, mayBlock returns false")
	}
}

// Resolving a path needs no child for a mount at the path itself, but one for a mount that
// a link leads through.
func TestResolveInAChild(t *testing.T) {
	top := t.TempDir()
	n := withMounts(t, "1 0 0:1 / / rw - ext4 /dev/sda rw\n"+
		"2 1 0:2 / "+top+"/dead rw - lustre x rw\n3 1 259:1 / "+top+"/ours rw - xfs /dev/mapper/v-l rw\n")
	for _, dir := range []string{"/dead", "/ours", "/fine"} {
		must(t, os.Mkdir(top+dir, 0o755))
	}
	for name, to := range map[string]string{"to-dead": top + "/dead/a", "near-dead": "dead", "to-fine": "fine", "to-ours": top + "/ours"} {
		must(t, os.Symlink(to, top+"/"+name))
	}
	for _, tt := range []struct {
		path, want string
		child      bool
	}{
		{"/ours", "/ours", false}, {"/fine/a", "/fine/a", false}, {"/to-fine/a/b", "/fine/a/b", false}, {"/to-ours", "/ours", false},
		{"/dead/a", "/dead/a", true}, {"/to-dead/b", "/dead/a/b", true}, {"/near-dead/b", "/dead/b", true}, {"/to-ours/b", "/ours/b", true},
	} {
		c := &counting{}
		got, err := n.For(Caller{Exec: c}).ResolveTarget(top + tt.path)
		if err != nil || got != top+tt.want {
			t.Errorf("%s: %q, %v", tt.path, got, err)
		}
		if ops := c.children(); len(ops) > 0 != tt.child {
			t.Errorf("%s: children %q", tt.path, ops)
		}
	}
}

// A target that is not below another mount is created without a child.
func TestOrdinaryTargetNeedsNoChild(t *testing.T) {
	c := &counting{}
	n := nonBlocking(t).For(Caller{Exec: c})
	path := t.TempDir() + "/a/b"
	n.MissingTargets(path)
	created, err := n.MakeDirectory(path)
	must(t, err)
	if left, err := n.RemoveTarget(path, created); err != nil || left != nil {
		t.Errorf("%q, %v", left, err)
	}
	if ops := c.children(); len(ops) > 0 {
		t.Errorf("children: %q", ops)
	}
}

// If the operation hangs, it returns after the time limit, no thread of this process
// hangs, and the child is killed.
func TestChildThatDoesNotRespond(t *testing.T) {
	n, c := blocking(t, 100*time.Millisecond)
	t.Setenv("NODE_TEST_CHILD", "stop")
	top := t.TempDir()
	bounded(t, 1100*time.Millisecond, func() {
		_, err := n.MakeDirectory(top + "/a")
		failed, ok := errors.AsType[*CommandError](err)
		if !ok || !failed.TimedOut || !strings.Contains(err.Error(), "-child mkdir "+top+"/a") {
			t.Errorf("got %v", err)
		}
	})
	if ops := c.children(); len(ops) != 1 {
		t.Errorf("children: %q", ops)
	}
	if !missing(top + "/a") {
		t.Error("the directory was created")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.For(Caller{Exec: c, Context: ctx}).MakeDirectory(top + "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller has cancelled: %v", err)
	}
}

func TestChildFails(t *testing.T) {
	n, _ := blocking(t, time.Minute)
	for how, text := range map[string]string{"silent": "returned no reply", "fail": "no luck"} {
		t.Setenv("NODE_TEST_CHILD", how)
		if _, err := n.MakeDirectory(t.TempDir() + "/a"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", how, err)
		}
	}
	t.Setenv("NODE_TEST_CHILD", "")
	if err := n.WriteFileIn(t.TempDir(), "x", make([]byte, childInput), 0, 0); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("too much: %v", err)
	}
}

// Without RunChild, the child would run the program's main a second time.
func TestChildNeedsRunChild(t *testing.T) {
	childReady.Store(false)
	defer childReady.Store(true)
	n, c := blocking(t, time.Minute)
	if _, err := n.MakeDirectory(t.TempDir() + "/a"); err == nil || !strings.Contains(err.Error(), "RunChild") || len(c.children()) > 0 {
		t.Errorf("got %v", err)
	}
}

// A child refuses invalid requests.
func TestChildRefuses(t *testing.T) {
	for _, tt := range []struct{ op, in, fd string }{
		{"mkdir", "{}", "1"}, {"mkdir", "{}", "x"}, {"mkdir", `{"surprise":1}`, "9"}, {"mkdir", "", "9"}, {"mkdir", `{"data":"` + strings.Repeat("A", childInput), "9"},
	} {
		t.Setenv(childReport, tt.fd)
		if err := runChild(tt.op, t.TempDir()+"/x", strings.NewReader(tt.in)); err == nil {
			t.Errorf("%s %.20q on descriptor %s was accepted", tt.op, tt.in, tt.fd)
		}
	}
	if _, err := new(Node).perform(request{Op: "format", Path: "/dev/sda"}); err == nil {
		t.Error("an unknown operation")
	}
}

// chown on the root of a frozen file system hangs in state D, and no signal interrupts it.
// The caller gets the pid, and this process can exit.
func TestChownOfAFrozenMount(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	mnt, thaw := frozen(t)
	n := (&Node{}).For(Caller{Limit: 200 * time.Millisecond})
	m, err := n.MountAt(mnt)
	must(t, err)
	bounded(t, 1200*time.Millisecond, func() {
		err = n.ChownMount(*m, 1001, 1002)
	})
	failed, ok := errors.AsType[*CommandError](err)
	if !ok || failed.PID == 0 || !survived(err) {
		t.Fatalf("got %v", err)
	}
	if ProcessStart(failed.PID) == "" {
		t.Error("the child does not hang")
	}
	threads, err := os.ReadDir("/proc/self/task")
	must(t, err)
	for _, th := range threads {
		if f, ok := statOf("/proc/self/task/" + th.Name()); ok && f[0] == "D" {
			t.Error("a thread of this process hangs")
		}
	}
	thaw()
	wait.Until(t, "the child exits", func() bool { return ProcessStart(failed.PID) == "" })
}

// frozen mounts a file system on which every write hangs until thaw, in the mount
// namespace of the caller.
func frozen(t *testing.T) (mnt string, thaw func()) {
	t.Helper()
	require.Tool(t, "mkfs.ext4", "mount")
	top := tmpfsDir(t)
	mnt = top + "/mnt"
	must(t, os.WriteFile(top+"/image", nil, 0o600))
	must(t, os.Truncate(top+"/image", 16<<20))
	must(t, os.Mkdir(mnt, 0o755))
	if out, err := exec.Command("mkfs.ext4", "-q", top+"/image").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	// The kernel frees the loop device with the mount.
	if out, err := exec.Command("mount", "-o", "loop", top+"/image", mnt).CombinedOutput(); err != nil {
		t.Skipf("no loop device available: %s", out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error("umount:", err)
		}
	})
	dir, err := os.Open(mnt)
	must(t, err)
	must(t, unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0))
	thaw = func() { unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0) }
	t.Cleanup(func() { thaw(); dir.Close() })
	return mnt, thaw
}

// BenchmarkChild measures an operation in a child, with this test binary.
func BenchmarkChild(b *testing.B) {
	n, _ := blocking(b, time.Minute)
	path := b.TempDir()
	for b.Loop() {
		if err := n.ChownMount(mountOf(path), uint32(os.Getuid()), uint32(os.Getgid())); err != nil {
			b.Fatal(err)
		}
	}
}
