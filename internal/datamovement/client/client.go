// Package client is the client of the Copy Offload API that nnf-dm serves: it starts,
// follows, cancels and deletes copies. It uses version 2 of the API if the daemon has
// it and version 1 otherwise; the caller sees no difference.
//
// It must not know terminals, flags or how anything is shown, nor what the
// daemon does with a request.
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

// DefaultSocket is where the daemon listens by default.
const DefaultSocket = pb.Socket

// Options name the daemon and the job.
type Options struct {
	Socket    string
	Workflow  string // may be empty if only version 1 calls with a uid are made
	Namespace string

	Interval time.Duration // between polls of a daemon without version 2; 0: 1s
	Patience time.Duration // how long Follow waits for a daemon that went away; 0: 2m
}

// Client is a connection to the daemon. Its methods return an *Error, with a hint if there
// is a next action (package hint).
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

// hear records that the daemon has answered just now.
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

// either makes a call in version 2 of the API. It makes the call in version 1 if the
// daemon has no version 2, or if the workflow is unknown, which version 2 requires.
// UNIMPLEMENTED means that the daemon has done nothing.
func (c *Client) either(v2, v1 func() error) error {
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

// Daemon is what a daemon reports about itself.
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

// State is how far a copy is.
type State string

// The states of a copy.
const (
	Pending    State = "pending"    // the rabbit has not started it
	Starting   State = "starting"   // the rabbit prepares it
	Running    State = "running"    // being copied
	Cancelling State = "cancelling" // its cancellation was requested
	Completed  State = "completed"  // ended; the result says how
	Unknown    State = "unknown"
)

// Result is how a copy ended; empty while it has not ended.
type Result string

// The results of a copy.
const (
	Success   Result = "success"
	Failure   Result = "failed"
	Refused   Result = "invalid" // the rabbit rejected it as invalid
	Cancelled Result = "cancelled"
	Deleted   Result = "deleted" // it was deleted before its end was seen
)

// Movement is one copy. What the daemon does not report is empty or nil; version 1
// reports less. Texts may hold anything that the copying command wrote.
type Movement struct {
	ID          string `json:"id"`
	Batch       string `json:"batch,omitempty"`
	State       State  `json:"state"`
	Result      Result `json:"result,omitempty"`
	Message     string `json:"message,omitempty"`
	Source      string `json:"source,omitempty"`      // as the rabbit sees it
	Destination string `json:"destination,omitempty"` // likewise

	Percent         *int32     `json:"percent,omitempty"`
	ElapsedSeconds  float64    `json:"elapsed_seconds,omitempty"`
	Rate            string     `json:"rate,omitempty"` // as the command writes it
	Data            string     `json:"data,omitempty"` // likewise
	Left            string     `json:"left,omitempty"` // time left, likewise
	Items           *int32     `json:"items,omitempty"`
	Directories     *int32     `json:"directories,omitempty"`
	Files           *int32     `json:"files,omitempty"`
	Links           *int32     `json:"links,omitempty"`
	Command         string     `json:"command,omitempty"`
	LastMessage     string     `json:"last_message,omitempty"`
	LastMessageTime *time.Time `json:"last_message_time,omitempty"`
	StartTime       *time.Time `json:"start_time,omitempty"`
	EndTime         *time.Time `json:"end_time,omitempty"`
	Restarts        int32      `json:"restarts,omitempty"`
}

// Ended tells whether the copy has ended.
func (m *Movement) Ended() bool { return m.State == Completed }

// Elapsed is how long the command has run.
func (m *Movement) Elapsed() time.Duration {
	return time.Duration(m.ElapsedSeconds * float64(time.Second)).Round(time.Millisecond)
}
