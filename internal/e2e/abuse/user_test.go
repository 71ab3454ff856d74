package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

// order is an action of a user, and result its result.
type order struct {
	ID     int
	Do     string        // one of floods; "": one call
	Method string        // of the call
	Body   []byte        // of the request, encoded
	Key    string        // idempotency key
	Limit  time.Duration // of the call, or of a flood
	N      int           // how many
	UID    string        // of a movement
	Slow   bool          // read slowly instead of never
}

type result struct {
	ID     int
	Body   []byte
	Status []byte // google.rpc.Status, encoded
	Counts map[string]int
	Times  []time.Duration // sorted
}

// user is a process with its own identity. It is a grpc.ClientConnInterface: the process makes
// the calls.
type user struct {
	t   *testing.T
	uid int
	pid int

	mu      sync.Mutex
	orders  *json.Encoder
	last    int
	pending map[int]chan result
	ended   error
}

// newUser runs this binary as another user, in a group with the same number.
func newUser(t *testing.T, socket string, uid int) *user {
	t.Helper()
	// Other users cannot access the directory of the test binary, but this path.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), socketVar+"="+socket)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, uid: uid, pid: cmd.Process.Pid, orders: json.NewEncoder(stdin), pending: map[int]chan result{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		u.collect(json.NewDecoder(stdout))
	}()
	t.Cleanup(func() {
		stdin.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("user %d: %v", uid, err)
		}
	})
	return u
}

func (u *user) collect(results *json.Decoder) {
	for {
		var r result
		err := results.Decode(&r)
		u.mu.Lock()
		if err != nil {
			u.ended = errors.New("the user's process has ended")
			for id, ch := range u.pending {
				close(ch)
				delete(u.pending, id)
			}
			u.mu.Unlock()
			return
		}
		u.pending[r.ID] <- r
		delete(u.pending, r.ID)
		u.mu.Unlock()
	}
}

// send sends an order and returns a channel for the result.
func (u *user) send(o order) (<-chan result, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended != nil {
		return nil, u.ended
	}
	u.last++
	o.ID = u.last
	ch := make(chan result, 1)
	u.pending[o.ID] = ch
	return ch, u.orders.Encode(o)
}

func (u *user) do(o order) (result, error) {
	ch, err := u.send(o)
	if err != nil {
		return result{}, err
	}
	r, ok := <-ch
	if !ok {
		return r, io.ErrUnexpectedEOF
	}
	return r, nil
}

// must calls do and fails the test on errors.
func (u *user) must(o order) result {
	u.t.Helper()
	r, err := u.do(o)
	if err != nil {
		u.t.Fatal(err)
	}
	return r
}

// start calls send and fails the test on errors; the returned function waits for the result.
func (u *user) start(o order) func() result {
	u.t.Helper()
	ch, err := u.send(o)
	if err != nil {
		u.t.Fatal(err)
	}
	return func() result {
		u.t.Helper()
		r, ok := <-ch
		if !ok {
			u.t.Fatal(io.ErrUnexpectedEOF)
		}
		return r
	}
}

// wire makes a call and returns the encoded response and status.
func (u *user) wire(method string, body []byte, key string) result {
	u.t.Helper()
	return u.must(order{Method: method, Body: body, Key: key, Limit: callLimit})
}

const callLimit = time.Minute

// Invoke implements grpc.ClientConnInterface.
func (u *user) Invoke(_ context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	body, err := proto.Marshal(args.(proto.Message))
	if err != nil {
		return err
	}
	r, err := u.do(order{Method: method, Body: body, Limit: callLimit})
	if err != nil {
		return err
	}
	var st spb.Status
	if err := proto.Unmarshal(r.Status, &st); err != nil {
		return err
	}
	if err := status.ErrorProto(&st); err != nil {
		return err
	}
	return proto.Unmarshal(r.Body, reply.(proto.Message))
}

// NewStream implements grpc.ClientConnInterface; no test uses it.
func (u *user) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.ErrUnsupported
}

func (u *user) v1() pb.DataMoverClient { return pb.NewDataMoverClient(u) }

// create creates a movement and fails the test on errors.
func (u *user) create(r *pb.DataMovementCreateRequest) string {
	u.t.Helper()
	c, err := u.v1().Create(u.t.Context(), r)
	if err != nil || c.Status != pb.DataMovementCreateResponse_SUCCESS {
		u.t.Fatalf("create: %v %v", c, err)
	}
	return c.Uid
}

// socketVar is the environment variable with the daemon's socket that makes this binary a
// user process.
const socketVar = "ABUSE_SOCKET"

// actor is the state of a user process.
type actor struct {
	socket string
	conn   *grpc.ClientConn
	mu     sync.Mutex
	held   []io.Closer // connections that stay open until "drop"
}

// actAsUser executes orders until the input ends.
func actAsUser(socket string, in io.Reader, out io.Writer) int {
	a := &actor{socket: socket}
	var err error
	if a.conn, err = a.dial(); err != nil {
		return 1
	}
	var writing sync.Mutex
	results := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			os.Exit(0) // running orders are no longer needed
		}
		go func() {
			r := a.do(o)
			r.ID = o.ID
			writing.Lock()
			defer writing.Unlock()
			_ = results.Encode(r) // fails if the parent has exited
		}()
	}
}

// plain is a codec for encoded messages, including those that no client would encode.
type plain struct{}

func (plain) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (plain) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }
func (plain) Name() string                       { return "proto" }

func (a *actor) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+a.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(plain{}), grpc.MaxCallSendMsgSize(1<<30)))
}

func (a *actor) do(o order) result {
	if flood := floods[o.Do]; flood != nil {
		return flood(a, o)
	}
	body, err := call(a.conn, o)
	st, _ := proto.Marshal(status.Convert(err).Proto())
	return result{Body: body, Status: st}
}

func call(conn *grpc.ClientConn, o order) (body []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
	defer cancel()
	if o.Key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, server.KeyMetadata, o.Key)
	}
	err = conn.Invoke(ctx, o.Method, o.Body, &body)
	return body, err
}

// tally counts calls by their codes.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
	times  []time.Duration
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[what]++
}

func (t *tally) call(err error, took time.Duration) {
	t.add(status.Code(err).String())
	if status.Code(err) == codes.OK {
		t.mu.Lock()
		t.times = append(t.times, took)
		t.mu.Unlock()
	}
}

func (t *tally) result() result {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.times)
	return result{Counts: t.counts, Times: t.times}
}
