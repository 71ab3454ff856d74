package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// ClusterOptions configure a cluster.
type ClusterOptions struct {
	Dir  string   // state; empty: a directory of the lab
	Args []string // more arguments for devcluster up
}

// Cluster is a real Kubernetes API server in its own process. Its Client has the
// rights of the administrator.
type Cluster struct {
	*Client
	Dir string
	URL string

	lab     *Lab
	options ClusterOptions
	process *Process
}

// StartCluster starts devcluster and returns when it is ready.
func (l *Lab) StartCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	if o.Dir == "" {
		o.Dir = l.path("cluster")
	}
	c := &Cluster{lab: l, Dir: o.Dir, options: o}
	if err := os.MkdirAll(filepath.Dir(o.Dir), 0o755); err != nil {
		return nil, err
	}
	l.onClose(func() error { return c.process.crashed() })
	return c, c.start(ctx)
}

func (c *Cluster) start(ctx context.Context, more ...string) (err error) {
	args := append([]string{"up", "--dir", c.Dir, "--stdin"}, c.options.Args...)
	var ready string
	if c.process, ready, err = c.lab.devcluster(ctx, append(args, more...)...); err != nil {
		return fmt.Errorf("the API server: %w", err)
	}
	c.URL = strings.Fields(ready)[0]
	c.Client, err = NewClient(filepath.Join(c.Dir, "admin.kubeconfig"))
	return err
}

// devcluster starts a sub-command of devcluster, which stops at the end of its
// standard input, and returns its ready line.
func (l *Lab) devcluster(ctx context.Context, args ...string) (*Process, string, error) {
	p, err := l.start(Spec{Program: "devcluster", Args: args, NoNotify: true, Stdin: true})
	if err != nil {
		return nil, "", err
	}
	line, err := p.WaitLog(ctx, func(l LogLine) bool { return strings.HasPrefix(l.Text, "ready ") })
	if err != nil {
		p.Kill9()
		log := p.Log()
		output := ""
		for _, l := range log[max(0, len(log)-20):] {
			output += l.Text
		}
		return nil, "", fmt.Errorf("devcluster %s did not become ready: %w: %s", args[0], err, output)
	}
	return p, strings.TrimPrefix(line.Text, "ready "), nil
}

// Usage returns the resource usage of the server process, which contains etcd.
func (c *Cluster) Usage() (Usage, error) { return c.process.Usage() }

// Address returns host and port.
func (c *Cluster) Address() string { return strings.TrimPrefix(c.URL, "https://") }

// API returns the address and credentials for daemons.
func (c *Cluster) API() API { return API{Address: c.Address(), Cert: c.CertFile(), Tokens: c.Dir} }

// CA returns the certificate authority of the server (PEM).
func (c *Cluster) CA() []byte { return c.ca }

// TokenFile returns the token file of clientmountd.
func (c *Cluster) TokenFile() string { return filepath.Join(c.Dir, "clientmountd", product.TokenFile) }

// CertFile returns the file with the certificate authority.
func (c *Cluster) CertFile() string { return filepath.Join(c.Dir, "clientmountd", product.CertFile) }

// Stop stops the server with SIGTERM.
func (c *Cluster) Stop() error {
	c.Client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.process.Stop(ctx)
	c.process.Kill9()
	return err
}

// Kill kills the server with SIGKILL.
func (c *Cluster) Kill() error {
	c.Client.Close()
	c.process.Kill9()
	return nil
}

// Pause suspends the server process: connections stay open, and requests get no
// response. It waits until all threads of the process are suspended.
func (c *Cluster) Pause() error {
	if err := c.process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, c.process.PID, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Resume resumes the server process.
func (c *Cluster) Resume() error { return c.process.Signal(unix.SIGCONT) }

// Restart starts the server again in the same directory, with additional arguments
// such as --new-ca. The server must be stopped.
func (c *Cluster) Restart(ctx context.Context, args ...string) error {
	select {
	case <-c.process.Done():
		return c.start(ctx, args...)
	default:
		return errors.New("the API server still runs: stop or kill it first")
	}
}

// Join starts a further API server on the etcd of the cluster and returns its process and
// its address (host and port). It accepts the credentials of the cluster.
func (c *Cluster) Join(ctx context.Context) (*Process, string, error) {
	p, ready, err := c.lab.devcluster(ctx, "join", "--dir", c.Dir, "--stdin")
	if err != nil {
		return nil, "", err
	}
	return p, strings.TrimPrefix(strings.Fields(ready)[0], "https://"), nil
}

// Rabbit is a process that processes the data movements of a namespace like a rabbit
// and really copies.
type Rabbit struct {
	process *Process
	faults  string
}

// StartRabbit starts a Rabbit. The keys of directories are paths on the rabbit, the
// values the corresponding paths on this machine. args are additional arguments of
// devcluster rabbit.
func (l *Lab) StartRabbit(c *Cluster, namespace string, directories map[string]string, args ...string) (*Rabbit, error) {
	args = append([]string{"rabbit", "--dir", c.Dir, "--namespace", namespace, "--stdin"}, args...)
	for from, to := range directories {
		args = append(args, "--map", from+"="+to)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, _, err := l.devcluster(ctx, args...)
	if err != nil {
		return nil, err
	}
	return &Rabbit{p, filepath.Join(c.Dir, "rabbit", "faults")}, nil
}

// Stop stops the rabbit and kills running copies. It may be called twice.
func (r *Rabbit) Stop() error {
	_ = r.process.CloseStdin()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	code, err := r.process.Wait(ctx)
	r.process.Kill9()
	if err == nil && code != 0 {
		err = fmt.Errorf("the rabbit exited with code %d", code)
	}
	return err
}

// Signal sends a signal to the rabbit, not to its copies: SIGSTOP suspends it.
func (r *Rabbit) Signal(s syscall.Signal) error { return r.process.Signal(s) }

// Faults replaces the injected faults of movements. For the syntax of the lines, such
// as "*/slow/* rate=64k", see devcluster rabbit --help.
func (r *Rabbit) Faults(lines ...string) error {
	next := r.faults + ".next"
	if err := os.WriteFile(next, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, r.faults)
}
