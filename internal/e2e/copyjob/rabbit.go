package copyjob

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// StartRabbit starts the stand-in for the node's rabbit, which really copies.
// maps are pairs /FROM=/TO: where the rabbit's folders are on this machine.
func (n *Compute) StartRabbit(maps ...string) {
	n.t.Helper()
	program := os.Getenv("DEVCLUSTER")
	if program == "" {
		program = filepath.Join(stage.Root(n.t), "bin", "devcluster")
	}
	args := []string{"rabbit", "--dir", n.Cluster.Dir, "--namespace", n.Rabbit, "--stdin"}
	for _, m := range maps {
		args = append(args, "--map", m)
	}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			n.t.Log("rabbit: ", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready ") {
		n.t.Fatalf("the rabbit is not ready: %q %v", line, err)
	}
}
