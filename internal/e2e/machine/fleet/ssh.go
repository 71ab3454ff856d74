package fleet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Result is how a program ended that the administrator has run.
type Result struct {
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

// environment is all that the administrator's programs find: nothing of the
// machine that runs the test.
func (f *Fleet) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.Dir, "KUBECONFIG=" + f.Kubeconfig, "LC_ALL=C.UTF-8", "TMPDIR=" + f.Dir}
}

// Command prepares a program as the administrator runs it.
func (f *Fleet) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = f.environment(), f.Dir
	cmd.WaitDelay = 20 * time.Second // something that holds its outputs must not hold the test
	return cmd
}

// Run runs a program to its end.
func (f *Fleet) Run(stdin io.Reader, name string, args ...string) Result {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := f.Command(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	began := time.Now()
	err := f.World.Run(cmd)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		f.t.Fatalf("%s: %v\n%s%s", name, err, &out, &errs)
	}
	return Result{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(began)}
}

// Config is the path of the configuration of the administrator's ssh.
func (f *Fleet) Config() string { return filepath.Join(f.Dir, "ssh_config") }

// SSH has a node's shell run a command, by the administrator's ssh.
func (f *Fleet) SSH(n *Node, command string) Result {
	f.t.Helper()
	return f.Run(nil, "ssh", "-F", f.Config(), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "--", n.Name, command)
}
