// Package client is the client of the Copy Offload API that nnf-dm serves: it starts,
// follows, cancels and deletes copies. It uses version 2 of the API if the daemon
// supports it, and version 1 otherwise; the interface of the package is the same for
// both.
//
// It must not know terminals, flags or output formats, nor what the daemon does with
// a request.
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

// Options select the daemon and the job.
type Options struct {
	Socket    string
	Workflow  string // may be empty for calls that take a uid; the client then uses version 1
	Namespace string

	Interval  time.Duration // between polls of a daemon without version 2; 0: 1s
	RetryTime time.Duration // how long Follow waits for an unreachable daemon; 0: 2m
}

// Client is a connection to the daemon. Its methods return an *Error, with a hint if there
// is a next action (package hint).
type Client struct {
	o    Options
	conn *grpc.ClientConn
	v1   pb.DataMoverClient
	v2   pb2.DataMoverClient
	old  atomic.Bool // the daemon has no version 2

	mu           sync.Mutex
	dialed       error // why the last attempt to connect failed
	lastResponse time.Time
}

// answerTime is the time limit of a call that does not wait for the end of a copy.
const answerTime = time.Minute

// pairTime is added to answerTime for each copy that one call creates. The API server may be
// busy with the copies of thousands of nodes that have started together.
const pairTime = 30 * time.Second

// Open returns a client. It does not contact the daemon before the first call.
func Open(o Options) (*Client, error) {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.RetryTime <= 0 {
		o.RetryTime = 2 * time.Minute
	}
	c := &Client{o: o}
	// The dialer uses the path directly, because some characters have a meaning in
	// gRPC's address syntax.
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

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Old reports whether a call has shown that the daemon has no version 2 of the API.
func (c *Client) Old() bool { return c.old.Load() }

func (c *Client) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.o.Socket)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialed = err
	if err == nil {
		c.lastResponse = time.Now()
	}
	return conn, err
}

// recordResponse records that the daemon has responded.
func (c *Client) recordResponse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastResponse = time.Now()
}

func (c *Client) lastResponseTime() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastResponse
}

// ConnectError returns why the last attempt to connect to the socket failed, nil if it
// succeeded.
func (c *Client) ConnectError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialed
}

// either calls v2. It calls v1 if the daemon has no version 2 of the API, or if there
// is no workflow, which version 2 requires. UNIMPLEMENTED means that the daemon has
// not executed the call.
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

// Daemon describes a daemon.
type Daemon struct {
	Version     string
	APIVersions []string
}

// Version returns the version of the daemon.
func (c *Client) Version(ctx context.Context) (Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := c.v1.Version(ctx, new(emptypb.Empty))
	if err != nil {
		return Daemon{}, c.explain(err)
	}
	return Daemon{Version: r.GetVersion(), APIVersions: r.GetApiVersions()}, nil
}

// State is the state of a copy.
type State string

// The states of a copy.
const (
	Pending    State = "pending"    // the rabbit has not started it
	Starting   State = "starting"   // the rabbit prepares it
	Running    State = "running"    // being copied
	Cancelling State = "cancelling" // its cancellation was requested
	Completed  State = "completed"  // ended, with a Result
	Unknown    State = "unknown"
)

// Result is the result of a copy; empty until the copy has ended.
type Result string

// The results of a copy.
const (
	Success   Result = "success"
	Failure   Result = "failed"
	Refused   Result = "invalid" // the rabbit rejected it as invalid
	Cancelled Result = "cancelled"
	Deleted   Result = "deleted" // it was deleted before its result was known
)

// Movement is one copy. Fields that the daemon does not report are empty or nil;
// version 1 reports fewer. Texts can contain arbitrary output of the copying command.
type Movement struct {
	ID          string `json:"id"`
	Batch       string `json:"batch,omitempty"`
	State       State  `json:"state"`
	Result      Result `json:"result,omitempty"`
	Message     string `json:"message,omitempty"`
	Source      string `json:"source,omitempty"`      // as the rabbit sees it
	Destination string `json:"destination,omitempty"` // as the rabbit sees it

	Percent         *int32     `json:"percent,omitempty"`
	ElapsedSeconds  float64    `json:"elapsed_seconds,omitempty"`
	Rate            string     `json:"rate,omitempty"` // as written by the command
	Data            string     `json:"data,omitempty"` // amount, as written by the command
	Left            string     `json:"left,omitempty"` // time left, as written by the command
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

// Ended reports whether the copy has ended.
func (m *Movement) Ended() bool { return m.State == Completed }

// Elapsed returns how long the command has run.
func (m *Movement) Elapsed() time.Duration {
	return time.Duration(m.ElapsedSeconds * float64(time.Second)).Round(time.Millisecond)
}
