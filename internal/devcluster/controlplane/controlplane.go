// Package controlplane runs the Kubernetes API machinery in this process: etcd,
// the generic control plane of the API server (custom resources, RBAC,
// namespaces, secrets, service accounts) and the few controllers that a cluster
// without pods needs.
//
// It must not know what the cluster is for. Other packages provide the definitions,
// the accounts and the files of the daemons.
package controlplane

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Config configures a control plane. All paths are files except DataDir.
type Config struct {
	Listener     net.Listener // on the loopback address
	DataDir      string       // etcd's; empty: the etcd of another control plane listens on ClientSocket
	EtcdLog      string
	ClientSocket string
	PeerSocket   string
	CAFile       string
	ServerCert   string
	ServerKey    string
	SignerFile   string
	Signer       *ecdsa.PrivateKey // the key in SignerFile
	CA           []byte            // the certificate in CAFile
	Admin        *rest.Config      // a client with all rights
	Args         []string          // further flags of the API server
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	etcd *embed.Etcd // nil: it belongs to another control plane
	stop context.CancelFunc
	done chan error
}

// Start starts the control plane, or a further API server of another one without its own
// etcd and controllers. It returns when the API server is ready and the default namespace
// exists.
func Start(ctx context.Context, c Config) (*ControlPlane, error) {
	// Not a child of ctx: ctx bounds the start only, and Stop stops the server.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &ControlPlane{stop: stop, done: make(chan error, 1)}
	var err error
	if c.DataDir != "" {
		if p.etcd, err = startEtcd(ctx, c); err != nil {
			stop()
			return nil, err
		}
	}
	prepared, err := prepareServer(running, c)
	if err != nil {
		stop()
		p.closeEtcd()
		return nil, fmt.Errorf("api server: %w", err)
	}
	go func() { p.done <- prepared.Run(running) }()
	clients, err := kubernetes.NewForConfig(c.Admin)
	if err == nil {
		err = p.waitReady(ctx, clients)
	}
	if err == nil && c.DataDir != "" {
		err = startControllers(running, c, clients)
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("api server: %w", err)
	}
	return p, nil
}

// Done returns the channel that receives the error of the API server, once, if the
// server stops on its own.
func (p *ControlPlane) Done() <-chan error { return p.done }

// Stop stops the API server and then etcd. This may take some seconds while clients
// hold watches. No data is lost if the process exits during that time.
func (p *ControlPlane) Stop() {
	p.stop()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
	}
	p.closeEtcd()
}

func (p *ControlPlane) closeEtcd() {
	if p.etcd != nil {
		p.etcd.Close()
	}
}

func (p *ControlPlane) waitReady(ctx context.Context, clients kubernetes.Interface) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	core := clients.CoreV1()
	for {
		if core.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil {
			if _, err := core.Namespaces().Get(ctx, "default", metav1.GetOptions{}); err == nil {
				return nil
			}
		}
		select {
		case err := <-p.done:
			p.done <- err // for Stop
			if err == nil {
				err = errors.New("exited during startup")
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
