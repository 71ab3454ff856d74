package main

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/authority"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/controlplane"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/provision"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

type joinOptions struct {
	cluster  *cluster
	lifetime *lifetime
	port     int
	verbose  bool
}

func defineJoin(flags *pflag.FlagSet) action {
	o := joinOptions{cluster: addDir(flags), lifetime: addLifetime(flags)}
	flags.IntVar(&o.port, "port", 0, "port on 127.0.0.1 (default: any free port)")
	flags.BoolVar(&o.verbose, "verbose", false, "write the log of the API server to standard error instead of a file")
	return func(ctx context.Context, s streams, args []string) error {
		if o.cluster.dir == "" {
			return usageError("--dir is required")
		}
		if err := checkPort(o.port); err != nil {
			return err
		}
		return o.join(ctx, s, args)
	}
}

// join runs an API server until ctx is done. It has the certificates and the signing key of
// the cluster, so clients can use each of the servers. The etcd belongs to the process of
// the cluster: when that stops, this server can no longer serve requests.
func (o *joinOptions) join(ctx context.Context, s streams, args []string) error {
	ctx, cancel, err := o.lifetime.follow(ctx, s)
	if err != nil {
		return err
	}
	defer cancel()
	dir, err := statedir.Join(o.cluster.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	admin, err := provision.ReadAdmin(dir.Path())
	if err != nil {
		return fmt.Errorf("the cluster in %s is not ready: %w", dir.Path(), err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port)))
	if err != nil {
		return err
	}
	defer listener.Close()
	closeLog, err := redirectLogs(dir.Path(joinedLog), o.verbose, s.err)
	if err != nil {
		return err
	}
	defer closeLog()
	admin.Host = "https://" + listener.Addr().String()
	keys := authority.Files(dir.Path("pki"))
	plane, err := controlplane.Start(ctx, controlplane.Config{
		Listener: listener, ClientSocket: dir.SocketPath(etcdSocket),
		CAFile: keys.CAFile, ServerCert: keys.ServerCert, ServerKey: keys.ServerKey, SignerFile: keys.SignerFile, Admin: admin, Args: args,
	})
	if err != nil {
		return err
	}
	defer stopWithin(plane, stopLimit)
	if err := provision.AwaitDefinitions(ctx, admin); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "ready %s dir=%s\n", admin.Host, dir.Path())
	select {
	case <-ctx.Done():
		s.progress("stopping")
		return nil
	case err := <-plane.Done():
		return fmt.Errorf("the API server exited: %w", err)
	}
}
