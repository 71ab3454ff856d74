package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// DefaultSocket is where the daemon listens unless it is told otherwise.
const DefaultSocket = pb.Socket

// Options say which daemon to speak to, and for which job.
type Options struct {
	Socket    string
	Workflow  string // may be empty where only version 1 calls with a uid are made
	Namespace string

	Interval time.Duration // between polls of a daemon without version 2; 0: 1s
	Patience time.Duration // for a daemon that is away while a copy is followed; 0: 2m
}

// Client is a connection to the daemon. Its methods return *Error.
type Client struct {
	o    Options
	conn *grpc.ClientConn
	v1   pb.DataMoverClient
	v2   pb2.DataMoverClient
	old  atomic.Bool // the daemon has no version 2

	mu     sync.Mutex
	dialed error // why the last attempt to connect failed
	heard  time.Time
}

// answerTime is how long a daemon may take for a call that does not wait.
const answerTime = time.Minute

// Open returns a client. Nothing is sent before the first call.
func Open(o Options) (*Client, error) {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 2 * time.Minute
	}
	c := &Client{o: o}
	// The dialer gets the path as it is, so that no character of it means
	// anything to gRPC's address syntax.
	conn, err := grpc.NewClient("passthrough:///nnf-dm",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(c.dial), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
		}, MinConnectTimeout: 10 * time.Second}))
	if err != nil {
		return nil, &Error{Kind: Failed, Text: err.Error(), err: err}
	}
	c.conn, c.v1, c.v2 = conn, pb.NewDataMoverClient(conn), pb2.NewDataMoverClient(conn)
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Old tells whether the daemon was found to have no version 2 of the API.
func (c *Client) Old() bool { return c.old.Load() }

func (c *Client) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.o.Socket)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialed = err
	if err == nil {
		c.heard = time.Now()
	}
	return conn, err
}

// hear notes that the daemon lives; heard is when it was last seen to.
func (c *Client) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = time.Now()
}

func (c *Client) lastHeard() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

func (c *Client) dialError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialed
}

// newest makes a call in version 2, or in version 1 when the daemon has no other
// or the call cannot be made in version 2: there the workflow is required.
// UNIMPLEMENTED means that nothing was done.
func (c *Client) newest(v2, v1 func() error) error {
	if c.o.Workflow == "" {
		return v1()
	}
	if !c.old.Load() {
		err := v2()
		if status.Code(err) != codes.Unimplemented {
			return err
		}
		c.old.Store(true)
	}
	return v1()
}

func (c *Client) workflow1() *pb.DataMovementWorkflow {
	if c.o.Workflow == "" {
		return nil
	}
	return &pb.DataMovementWorkflow{Name: c.o.Workflow, Namespace: c.o.Namespace}
}

func (c *Client) workflow2() *pb2.Workflow {
	return &pb2.Workflow{Name: c.o.Workflow, Namespace: c.o.Namespace}
}

// Daemon is what a daemon says of itself.
type Daemon struct {
	Version     string
	APIVersions []string
}

// Version asks the daemon for its version.
func (c *Client) Version(ctx context.Context) (Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := c.v1.Version(ctx, new(emptypb.Empty))
	if err != nil {
		return Daemon{}, c.explain(err)
	}
	return Daemon{Version: r.GetVersion(), APIVersions: r.GetApiVersions()}, nil
}
