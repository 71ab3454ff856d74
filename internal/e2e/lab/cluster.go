package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ClusterOptions choose the API server's state and how it is started.
type ClusterOptions struct {
	Dir  string   // empty: a folder of the laboratory
	Args []string // more arguments for devcluster up
}

// Cluster is a real Kubernetes API server in a process of its own. Its Client
// is the administrator's.
type Cluster struct {
	*Client
	Dir string
	URL string
	Log string // the server's standard error

	lab     *Lab
	options ClusterOptions
	cmd     *exec.Cmd
	stdin   io.Closer
	done    chan struct{}
}

// StartCluster starts devcluster, from DEVCLUSTER or the repository's bin
// folder, and returns when it is ready.
func (l *Lab) StartCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	if o.Dir == "" {
		o.Dir = l.path("cluster")
	}
	c := &Cluster{lab: l, Dir: o.Dir, options: o, Log: o.Dir + ".log"}
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	l.onClose(func() error { return c.Kill() })
	return c, nil
}

func (c *Cluster) start(ctx context.Context, more ...string) error {
	program, err := findBinary("DEVCLUSTER", "devcluster", "devcluster")
	if err != nil {
		return err
	}
	args := append([]string{"up", "--dir", c.Dir, "--stdin"}, c.options.Args...)
	cmd := exec.Command(program, append(args, more...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.lab.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	c.cmd, c.done = cmd, make(chan struct{})
	ready := make(chan string, 1)
	done := c.done
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				ready <- strings.Fields(rest)[0]
				break
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		c.lab.alive(cmd.Process.Pid, false)
		close(done)
	}()
	select {
	case c.URL = <-ready:
	case <-done:
		tail, _ := os.ReadFile(c.Log)
		return fmt.Errorf("the API server ended before it was ready: %s", tail[max(0, len(tail)-2000):])
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("the API server did not become ready: %w", ctx.Err()), c.Kill())
	}
	c.Client, err = NewClient(filepath.Join(c.Dir, "admin.kubeconfig"))
	return err
}

// Address returns host and port.
func (c *Cluster) Address() string { return strings.TrimPrefix(c.URL, "https://") }

// CA returns the server's certificate authority as PEM.
func (c *Cluster) CA() []byte { return c.Client.ca }

// TokenFile and CertFile are what the site gives to clientmountd.
func (c *Cluster) TokenFile() string { return filepath.Join(c.Dir, "clientmountd", "service.token") }

// CertFile is the file with the certificate authority.
func (c *Cluster) CertFile() string { return filepath.Join(c.Dir, "clientmountd", "service.cert") }

// Stop ends the server the polite way.
func (c *Cluster) Stop() error {
	c.Client.Close()
	_ = c.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-c.done:
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("the API server did not end within 20 s of SIGTERM"), c.Kill())
	}
}

// Kill ends the server by SIGKILL.
func (c *Cluster) Kill() error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if c.Client != nil {
		c.Client.Close()
	}
	err := c.cmd.Process.Kill()
	<-c.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Pause stops the server's process, so that connections stay open and nobody
// answers. It returns when the process has stopped: its threads may go on for a
// moment after the signal.
func (c *Cluster) Pause() error {
	if err := c.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Resume lets it go on.
func (c *Cluster) Resume() error { return c.cmd.Process.Signal(unix.SIGCONT) }

// Restart starts the server again on the same folder, with more arguments such
// as --new-ca. It must have ended.
func (c *Cluster) Restart(ctx context.Context, args ...string) error {
	select {
	case <-c.done:
		return c.start(ctx, args...)
	default:
		return errors.New("the API server still runs: stop or kill it first")
	}
}
