package copyjob

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

// UseProxy puts a proxy between the daemon and the API server, whose address
// and certificate file it returns.
func (n *Compute) UseProxy() (proxy *lab.Proxy, address, cert string) {
	n.t.Helper()
	p, err := lab.StartProxy(n.Cluster.URL, n.Cluster.CA())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = p.Close() })
	return p, p.Address, n.Write("ca.pem", p.CA())
}

// Write writes a file of the scene the way a site's tools do: at once.
func (n *Compute) Write(name string, data []byte) string {
	n.t.Helper()
	path := filepath.Join(n.Dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// Launch starts nnf-dm and does not wait for anything. An empty address is the
// API server's own.
func (n *Compute) Launch(address, cert string, flags ...string) *lab.Daemon {
	n.t.Helper()
	if address == "" {
		address, cert = n.Cluster.Address(), filepath.Join(n.Cluster.Dir, "nnf-dm", "service.cert")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		n.t.Fatal(err)
	}
	args := append([]string{
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + n.Token, "--service-cert-file=" + cert,
		"--node-name=" + n.Node, "--sys-config=" + n.Node, "--socket=" + n.Socket, "--log-format=json", "--config=/dev/null",
	}, flags...)
	d, err := n.StartDaemon(lab.DaemonOptions{Binary: filepath.Join(stage.Root(n.t), "bin", "nnf-dm"), Args: args})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		d.Kill9()
		if n.t.Failed() {
			log := d.Log()
			for _, line := range log[max(0, len(log)-200):] {
				n.t.Log("daemon: ", strings.TrimSpace(line.Text))
			}
		}
	})
	return d
}

// Start is Launch, and waits until the daemon is ready.
func (n *Compute) Start(address, cert string, flags ...string) *lab.Daemon {
	n.t.Helper()
	d := n.Launch(address, cert, flags...)
	n.Ready(d)
	return d
}

// Ready waits until the daemon is ready.
func (n *Compute) Ready(d *lab.Daemon) {
	n.t.Helper()
	if _, err := d.WaitReady(n.Context(patience)); err != nil {
		n.t.Fatal("the daemon does not become ready: ", err)
	}
}

// End asks the daemon to end and fails unless it does so well.
func (n *Compute) End(d *lab.Daemon) {
	n.t.Helper()
	if err := d.Term(); err != nil {
		n.t.Fatal(err)
	}
	if code, err := d.Wait(n.Context(patience)); code != 0 || err != nil {
		n.t.Fatalf("exit code %d, %v", code, err)
	}
}

// Dial connects to the daemon as the test's own user. A daemon that is restarted
// is found again at once.
func (n *Compute) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("unix://"+n.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: patience,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
