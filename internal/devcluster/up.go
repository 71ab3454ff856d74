package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/apiclient"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/authority"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/controlplane"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/manifests"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/provision"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

// stopLimit limits the stop of the cluster. The API server and etcd wait longer for
// clients with a watch. All writes are in the page cache, so no data is lost.
const stopLimit = 2 * time.Second

type upOptions struct {
	dir, crds         string
	port              int
	computes, rabbits []string
	newCA, verbose    bool
	lifetime          *lifetime
}

func defineUp(flags *pflag.FlagSet) action {
	o := upOptions{lifetime: addLifetime(flags)}
	flags.StringVar(&o.dir, "dir", "", "directory of the cluster; its state persists across restarts")
	flags.StringVar(&o.crds, "crds", "", "install the definitions in the *.yaml files of this directory instead of the built-in ones")
	flags.IntVar(&o.port, "port", 0, "port on 127.0.0.1 (default: the previous port of the cluster, or any free port)")
	flags.StringArrayVar(&o.computes, "compute", []string{"compute-01", "compute-02"}, "name of a compute node; creates its namespace")
	flags.StringArrayVar(&o.rabbits, "rabbit", []string{"rabbit-01"}, "name of a rabbit; creates its namespace")
	flags.BoolVar(&o.newCA, "new-ca", false, "create a new certificate authority")
	flags.BoolVar(&o.verbose, "verbose", false, "write the log of the API server to standard error instead of a file")
	return func(ctx context.Context, s streams, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		return o.up(ctx, s, args)
	}
}

func (o *upOptions) check() error {
	if o.dir == "" {
		return usageError("--dir is required")
	}
	if err := checkPort(o.port); err != nil {
		return err
	}
	for _, name := range append(o.computes, o.rabbits...) {
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return usageError("node name %q: %s", name, problems[0])
		}
	}
	return nil
}

func (o *upOptions) up(ctx context.Context, s streams, args []string) error {
	ctx, cancel, err := o.lifetime.follow(ctx, s)
	if err != nil {
		return err
	}
	defer cancel()
	crds, err := o.definitions()
	if err != nil {
		return err
	}
	dir, err := statedir.Lock(o.dir)
	if err != nil {
		return err
	}
	defer func() {
		if err := dir.Close(); err != nil {
			s.progress("cleanup: %v", err)
		}
	}()
	if err := dir.RecordProcess(); err != nil {
		return err
	}
	closeLog, err := redirectLogs(dir.Path(serverLog), o.verbose, s.err)
	if err != nil {
		return err
	}
	defer closeLog()
	return o.serve(ctx, s, dir, crds, args)
}

// serve runs the cluster in a locked directory until ctx is done.
func (o *upOptions) serve(ctx context.Context, s streams, dir *statedir.Dir, crds []*apiext.CustomResourceDefinition, args []string) error {
	began := time.Now()
	keys, err := authority.Load(dir.Path("pki"), o.newCA)
	if err != nil {
		return err
	}
	listener, err := listen(dir, o.port)
	if err != nil {
		return err
	}
	defer listener.Close()
	address := listener.Addr().String()
	admin := &rest.Config{
		Host:            "https://" + address,
		TLSClientConfig: rest.TLSClientConfig{CAData: keys.CA, CertData: keys.AdminCert, KeyData: keys.AdminKey},
		WarningHandler:  rest.NoWarnings{},
	}
	provision.Unthrottle(admin)
	s.progress("starting the API server on %s, state in %s", address, dir.Path())
	plane, err := controlplane.Start(ctx, controlplane.Config{
		Listener: listener, DataDir: dir.Path("etcd"), EtcdLog: dir.Path("etcd.log"),
		ClientSocket: dir.SocketPath(etcdSocket), PeerSocket: dir.SocketPath("peer.sock"),
		CAFile: keys.CAFile, ServerCert: keys.ServerCert, ServerKey: keys.ServerKey,
		SignerFile: keys.SignerFile, Signer: keys.Signer, CA: keys.CA, Admin: admin, Args: args,
	})
	if err != nil {
		return err
	}
	defer stopWithin(plane, stopLimit)
	s.progress("API server ready after %.1f s; installing %d definitions", time.Since(began).Seconds(), len(crds))
	if err := o.provision(ctx, dir, admin, address, crds); err != nil {
		if ctx.Err() != nil {
			return nil // stopped during the installation
		}
		return err
	}
	s.progress("cluster ready after %.1f s", time.Since(began).Seconds())
	fmt.Fprintf(s.out, "ready %s dir=%s\n", admin.Host, dir.Path())
	select {
	case <-ctx.Done():
		s.progress("stopping")
		return nil
	case err := <-plane.Done():
		return fmt.Errorf("the API server exited: %w", err)
	}
}

func (o *upOptions) provision(ctx context.Context, dir *statedir.Dir, admin *rest.Config, address string, crds []*apiext.CustomResourceDefinition) error {
	if err := provision.Install(ctx, admin, crds, append(o.computes, o.rabbits...)); err != nil {
		return err
	}
	client, err := apiclient.New(admin)
	if err != nil {
		return err
	}
	for _, d := range provision.Daemons {
		if err := d.WriteCredentials(ctx, client, admin, dir.Path()); err != nil {
			return err
		}
	}
	if err := provision.WriteAdmin(dir.Path(), admin); err != nil {
		return err
	}
	return statedir.WriteFile(dir.Path(addressFile), []byte(address+"\n"))
}

func (o *upOptions) definitions() ([]*apiext.CustomResourceDefinition, error) {
	if o.crds != "" {
		return manifests.CRDsFrom(o.crds)
	}
	return manifests.CRDs()
}

// listen listens on the given port or, by default, on the previous port of the cluster,
// so that clients find a restarted server.
func listen(dir *statedir.Dir, port int) (net.Listener, error) {
	hint := ""
	if text, err := os.ReadFile(dir.Path(addressFile)); port == 0 && err == nil {
		_, former, err := net.SplitHostPort(strings.TrimSpace(string(text)))
		if err == nil {
			port, err = strconv.Atoi(former)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir.Path(addressFile), err)
		}
		hint = " (the previous port of the cluster; to use another one, set --port)"
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, hint)
	}
	return l, nil
}

// stopWithin stops the control plane. After the limit it returns; the exit of the
// process then stops it.
func stopWithin(plane *controlplane.ControlPlane, limit time.Duration) {
	stopped := make(chan struct{})
	go func() { plane.Stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(limit):
	}
}
