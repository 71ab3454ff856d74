package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd runs etcd on unix sockets, without a TCP port and credentials. Only the
// owner has access to the directory of the sockets.
func startEtcd(ctx context.Context, c Config) (*embed.Etcd, error) {
	e := embed.NewConfig()
	e.Dir = c.DataDir
	e.LogLevel = "error"
	e.LogOutputs = []string{c.EtcdLog}
	// Writes reach the page cache, which survives this process. Only a crash of the
	// machine can lose them, which is acceptable for a test cluster.
	e.UnsafeNoFsync = true
	e.ListenClientUrls = []url.URL{{Scheme: "unix", Path: c.ClientSocket}}
	// The peer listener uses only Host. If it is empty, the listener is an abstract
	// socket, open to every user of the machine.
	e.ListenPeerUrls = []url.URL{{Scheme: "unix", Host: c.PeerSocket}}
	// Advertised addresses must be host:port. A single member never connects to them.
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
