package node

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"
)

// helpers are the functions that the test binary runs when a test starts it as a helper.
var helpers = map[string]func(args []string){}

func TestMain(m *testing.M) {
	childFailure()
	RunChild()
	if name := os.Getenv("NODE_TEST_HELPER"); name != "" {
		helpers[name](os.Args[1:])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// plant creates the tree of testdata/name.txtar in a new directory and returns a Node with
// this tree as its Root. An entry named "a -> b" is a symlink.
func plant(t testing.TB, name string) *Node {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, f := range a.Files {
		at, to, link := strings.Cut(f.Name, " -> ")
		at = filepath.Join(root, at)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if link {
			err = os.Symlink(to, at)
		} else {
			err = os.WriteFile(at, f.Data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return &Node{Root: root, Exec: &fake{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// fake is a Runner with a table of outputs by command line. It logs the lines.
type fake struct {
	mu      sync.Mutex
	answers map[string]string // output of each line
	errors  map[string]error
	lines   []string
	last    Command
}

func (f *fake) Run(_ context.Context, c Command) (Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	line := c.String()
	f.lines, f.last = append(f.lines, line), c
	if err := f.errors[line]; err != nil {
		return Result{}, &CommandError{Line: line, Err: err}
	}
	out, ok := f.answers[line]
	if !ok {
		return Result{}, &CommandError{Line: line, Err: errors.New("not expected by this test")}
	}
	return Result{Stdout: out}, nil
}

// inNamespace runs the calling test again in a process with a private mount namespace. It
// reports whether this process is that one. Mounts in the namespace are not visible to the
// host.
func inNamespace(t *testing.T) bool {
	t.Helper()
	return inNamespaces(t, "", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS})
}

// inPIDNamespace is inNamespace with a private PID namespace as well.
func inPIDNamespace(t *testing.T) bool {
	t.Helper()
	return inNamespaces(t, "init", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID})
}

// inNamespaces runs the calling test again in a process with these attributes, which is
// the named helper, or a child of it.
func inNamespaces(t *testing.T, name string, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv("NODE_TEST_NAMESPACE") == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can create a namespace")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "NODE_TEST_NAMESPACE="+t.Name(), "NODE_TEST_HELPER="+name)
	attr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this container may not create a namespace")
	}
	t.Logf("in its own namespace:\n%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Error("failed in its own namespace:", err)
	}
	return false
}

// helper starts the test binary as the named helper and waits until it is ready. It runs
// until the test ends.
func helper(t testing.TB, name string, attr *syscall.SysProcAttr, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), "NODE_TEST_HELPER="+name)
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // the helper exits when this is closed, even if this process is killed
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	word := make([]byte, 5)
	if _, err := out.Read(word); err != nil || string(word) != "ready" {
		t.Fatalf("helper %s: %q, %v", name, word, err)
	}
	return cmd
}

// ready is called by a helper: it reports to the test and waits until the test ends.
func ready() {
	os.Stdout.WriteString("ready")
	os.Stdin.Read(make([]byte, 1))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// busy is the additional time on a loaded machine. Hanging operations in these tests hang
// longer.
const busy = 3 * time.Second

// bounded fails the test if f takes longer than limit and busy.
func bounded(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if d := time.Since(begin); d > limit+busy {
		t.Errorf("took %v, more than %v", d, limit+busy)
	}
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
