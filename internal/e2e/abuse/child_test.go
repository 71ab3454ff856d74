package abuse

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

// socketVar makes this binary a user of the daemon at that socket.
const socketVar = "ABUSE_SOCKET"

// actor is a user's process from within.
type actor struct {
	socket string
	conn   *grpc.ClientConn
	mu     sync.Mutex
	held   []io.Closer // connections that stay open until "drop"
}

// actAsUser carries out orders until there are no more.
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
			os.Exit(0) // what is under way is of no interest any more
		}
		go func() {
			r := a.do(o)
			r.ID = o.ID
			writing.Lock()
			defer writing.Unlock()
			_ = results.Encode(r) // the parent may be gone
		}()
	}
}

// plain passes encoded messages through, so that also what no client would
// encode can be sent.
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

// tally counts outcomes of calls by their codes.
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
