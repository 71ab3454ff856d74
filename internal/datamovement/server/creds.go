package server

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// peerCredentials takes the caller's identity from the kernel. Nothing is said
// on the wire: for the client the channel is an insecure one.
type peerCredentials struct{ meters *meters }

// identity is a connection's caller, and why it should not be here, if so.
type identity struct {
	credentials.CommonAuthInfo
	unixsocket.Peer
	refused error
	self    bool         // the daemon itself asks: see Pulse
	meter   *meter       // nil: not counted
	conn    *meteredConn // likewise
}

// AuthType implements credentials.AuthInfo.
func (identity) AuthType() string { return "peercred" }

func (p peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	id := identity{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	if _, id.self = c.(selfConn); id.self {
		return c, id, nil
	}
	var err error
	if id.Peer, err = unixsocket.PeerOf(c); err != nil {
		return nil, nil, err
	}
	if uc, ok := c.(*unixsocket.Conn); ok {
		id.refused = uc.Refused()
	}
	c = p.meters.watch(c, &id)
	return c, id, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers only")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

func (peerCredentials) OverrideServerName(string) error { return nil }

// identityOf returns who calls; false when the transport does not say.
func identityOf(ctx context.Context) (identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity{}, false
	}
	id, ok := p.AuthInfo.(identity)
	return id, ok
}

func callerOf(p unixsocket.Peer) datamovement.Caller {
	return datamovement.Caller{UID: p.UID, GID: p.GID, PID: p.PID, Groups: p.Groups}
}
