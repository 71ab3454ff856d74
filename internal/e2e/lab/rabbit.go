package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Rabbit is a process that does the data movements of CopyRabbit as a rabbit
// does, and really copies.
type Rabbit struct {
	faults string
	stop   func() error
}

// StartRabbit starts it. The keys of folders are paths as the rabbit has them,
// the values where that is on this machine.
func (l *Lab) StartRabbit(c *Cluster, folders map[string]string) (*Rabbit, error) {
	program, err := findBinary("DEVCLUSTER", "devcluster", "devcluster")
	if err != nil {
		return nil, err
	}
	args := []string{"rabbit", "--dir", c.Dir, "--namespace", CopyRabbit, "--stdin"}
	for from, to := range folders {
		args = append(args, "--map", from+"="+to)
	}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	log, err := os.OpenFile(l.path("rabbit.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	r := &Rabbit{faults: filepath.Join(c.Dir, "rabbit", "faults")}
	r.stop = sync.OnceValue(func() error {
		stdin.Close()
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_, _ = io.Copy(io.Discard, stdout)
		err := cmd.Wait()
		l.alive(cmd.Process.Pid, false)
		return err
	})
	l.onClose(r.kill(cmd))
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready ") {
		said, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("the rabbit is not ready: %q: %s", line, said), r.Stop())
	}
	return r, nil
}

// kill is for the laboratory's end, when nothing matters any more.
func (r *Rabbit) kill(cmd *exec.Cmd) func() error {
	return func() error {
		_ = cmd.Process.Kill()
		_ = r.stop()
		return nil
	}
}

// Stop ends it; copies that run then are killed. It may be called twice.
func (r *Rabbit) Stop() error { return r.stop() }

// Faults replaces what goes wrong with movements from now on: lines as
// devcluster rabbit --help says, such as "*/slow/* rate=64k".
func (r *Rabbit) Faults(lines ...string) error {
	next := r.faults + ".next"
	if err := os.WriteFile(next, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, r.faults)
}
