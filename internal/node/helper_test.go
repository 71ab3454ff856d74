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

// helpers are what the test binary does instead of testing when a test starts it.
var helpers = map[string]func(args []string){}

func TestMain(m *testing.M) {
	childTrouble()
	RunChild()
	if name := os.Getenv("NODE_TEST_HELPER"); name != "" {
		helpers[name](os.Args[1:])
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// plant makes the tree of testdata/name.txtar in a fresh directory and returns a
// Node that takes it for the machine. An entry named "a -> b" is a symlink.
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

// fake is a Runner that answers from a table of lines and keeps a log of them.
type fake struct {
	mu      sync.Mutex
	answers map[string]string // what the line prints
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

// inNamespace runs the calling test again, in a process with a mount namespace
// of its own, and reports whether we are there. Nothing that is mounted there is seen
// by the host.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("NODE_TEST_NAMESPACE") == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a mount namespace")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "NODE_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this container may not make a mount namespace")
	}
	t.Logf("in its own mount namespace:\n%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Error("failed in its own mount namespace:", err)
	}
	return false
}

// helper starts the test binary as the named helper and waits until it says ready.
// It lives until the test ends.
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
	in, err := cmd.StdinPipe() // the helper ends when this closes, also if we are killed
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

// ready is called by a helper: it tells the test and waits for its end.
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

// busy is what a machine with other work may take longer; what hangs in these
// tests hangs longer than that.
const busy = 3 * time.Second

// bounded fails the test when f takes longer.
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
