package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd runs the store on unix sockets: no TCP port and no credentials, the
// sockets' directory is open to its owner only.
func startEtcd(ctx context.Context, c Config) (*embed.Etcd, error) {
	e := embed.NewConfig()
	e.Dir = c.DataDir
	e.LogLevel = "error"
	e.LogOutputs = []string{c.EtcdLog}
	// Writes reach the page cache, which outlives this process; only a crash of
	// the machine could lose them, and nobody restarts a test cluster then.
	e.UnsafeNoFsync = true
	e.ListenClientUrls = []url.URL{{Scheme: "unix", Path: c.ClientSocket}}
	// The peer listener takes its address from Host alone; with an empty one it
	// would be an abstract socket, open to every user of the machine.
	e.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: c.PeerSocket}}
	// Advertised addresses must be host:port; a single member never dials them.
	nowhere := []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}
	e.AdvertiseClientUrls, e.AdvertisePeerUrls = nowhere, nowhere
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	server, err := embed.StartEtcd(e)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server, nil
	case err = <-server.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(30 * time.Second):
		err = errors.New("not ready after 30 s")
	}
	server.Close()
	return nil, fmt.Errorf("etcd: %w", err)
}
