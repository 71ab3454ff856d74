package offload

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// TestClientGuide runs the commands of docs/write-a-client.md: the simulated daemon in the
// background, then those that need it. The socket is in a directory of the test.
func TestClientGuide(t *testing.T) {
	blocks := manual.Commands(t, fixture.Root(t), "docs/write-a-client.md", "internal/e2e/offload TestClientGuide")
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of commands, want the daemon and its clients", len(blocks))
	}
	program, err := lab.Binary("nnf-dm")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "guide") // a short path, see unix(7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "nnf-dm.sock")
	command := func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-euc", strings.ReplaceAll(script, "/tmp/nnf-dm.sock", socket))
		cmd.Env = []string{"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH")}
		return cmd
	}
	daemon := command("exec " + blocks[0])
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		if err := daemon.Wait(); err != nil {
			t.Errorf("nnf-dm: %v", err)
		}
	})
	wait.Until(t, "the daemon listens", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	out, err := command(blocks[1]).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "(API 1)") || !strings.Contains(string(out), ": success, ") {
		t.Errorf("%v\n%s", err, out)
	}
}
