package server

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that answerCodec extends
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

const (
	// spaceWait is how long a response waits for free memory: a client that reads gets
	// its responses within this time even if other clients of the same user do not read.
	spaceWait = 5 * time.Second
	// smallAnswer is the size up to which perRequest includes the only response of a
	// call.
	smallAnswer = 1 << 10
	// leastBuffer is the minimum capacity of an encoded response. gRPC returns only
	// buffers of more than 1 KiB to their pool.
	leastBuffer = 2 << 10
	// waitingAnswers is how many calls of one user may wait for memory. The responses
	// that they hold are not counted yet.
	waitingAnswers = 64
)

// errNoMemory is the error for a user who uses too much memory.
var errNoMemory = datamovement.LimitExceeded("limits.memory_per_user")

// charge counts the memory that one call uses in addition to the request: for the
// followed movements, and for responses from their encoding until gRPC has written
// them or the client has disconnected. The flow control of HTTP/2 allows a client to
// leave responses unread for any time. A nil *charge counts nothing.
type charge struct {
	conn     *meteredConn
	held     int64 // bytes; under the mutex of all meters
	closed   bool  // everything was given back; under the same mutex
	reserved int64 // charged by reserve for the next response; used only by the call's goroutine
}

type chargeKey struct{}

func chargeOf(ctx context.Context) *charge {
	c, _ := ctx.Value(chargeKey{}).(*charge)
	return c
}

// take charges bytes to the user. It waits for a limited time until they are free.
// The error is errNoMemory, or that of ctx.
func (c *charge) take(ctx context.Context, bytes int64) error {
	if c == nil || bytes <= 0 {
		return nil
	}
	m := c.conn.id.meter
	var timer *time.Timer
	for last := false; ; {
		m.all.mu.Lock()
		limit := m.limit()
		switch {
		case c.closed || c.conn.gone:
			m.all.mu.Unlock()
			return context.Canceled
		case limit == 0 || m.held+bytes <= soft(limit):
			m.change(bytes)
			c.held += bytes
			c.conn.charged += bytes
			m.all.mu.Unlock()
			return nil
		case last || bytes > soft(limit) || timer == nil && m.queue >= waitingAnswers:
			m.all.mu.Unlock()
			return errNoMemory
		}
		if m.freed == nil {
			m.freed = make(chan struct{})
		}
		freed := m.freed
		if timer == nil {
			m.queue++
		}
		m.all.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(cmp.Or(m.all.wait, spaceWait))
			defer timer.Stop()
			defer m.dequeue()
		}
		select {
		case <-freed:
		case <-timer.C:
			last = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// give gives back bytes that take has charged. Calls after close have no effect.
func (c *charge) give(bytes int64) {
	if c == nil || bytes <= 0 {
		return
	}
	m := c.conn.id.meter
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if c.closed || c.conn.gone {
		return
	}
	c.held -= bytes
	c.conn.charged -= bytes
	m.change(-bytes)
}

// close gives everything back, for a call whose responses gRPC has dropped.
func (c *charge) close() {
	m := c.conn.id.meter
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if !c.closed && !c.conn.gone {
		m.change(-c.held)
		c.conn.charged -= c.held
	}
	c.closed = true
}

// reserve charges the memory for a response before it is built.
func (c *charge) reserve(ctx context.Context, bytes int64) error {
	if c == nil {
		return nil
	}
	err := c.take(ctx, bytes)
	if err == nil {
		c.reserved += bytes
	}
	return err
}

// answer returns the value to send instead of message, so that the response is counted
// until gRPC has written it. only means that the call has no other response.
func (c *charge) answer(ctx context.Context, message any, only bool) (any, error) {
	m, ok := message.(proto.Message)
	if c == nil || !ok {
		return message, nil
	}
	size := proto.Size(m)
	if only && size <= smallAnswer && c.reserved == 0 {
		return message, nil
	}
	bytes := int64(max(size, leastBuffer))
	if bytes > c.reserved {
		if err := c.take(ctx, bytes-c.reserved); err != nil {
			c.give(c.reserved)
			c.reserved = 0
			return nil, err
		}
	}
	bytes, c.reserved = max(bytes, c.reserved), 0
	return &answer{charge: c, message: m, size: size, bytes: bytes}, nil
}

// answer is a message with its charged bytes. As a mem.BufferPool it is notified when
// its encoded form is no longer needed.
type answer struct {
	charge  *charge
	message proto.Message
	size    int
	bytes   int64
}

// Get implements mem.BufferPool; gRPC never calls it.
func (a *answer) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool.
func (a *answer) Put(*[]byte) { a.charge.give(a.bytes) }

// answerCodec encodes answers, and passes all other values to the embedded codec.
type answerCodec struct{ encoding.CodecV2 }

func newAnswerCodec() answerCodec { return answerCodec{encoding.GetCodecV2("proto")} }

func (c answerCodec) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*answer)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(make([]byte, 0, max(a.size, leastBuffer)), a.message)
	if err != nil {
		a.Put(nil)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(&b, a)}, nil
}

// counted is a stream whose context contains the charge, and whose responses are
// counted.
type counted struct {
	grpc.ServerStream
	ctx    context.Context
	method string
	calls  *interceptor
}

func (s counted) Context() context.Context { return s.ctx }

func (s counted) SendMsg(m any) error {
	a, err := chargeOf(s.ctx).answer(s.ctx, m, false)
	if err != nil {
		s.calls.audit(callerOf(s.ctx), "answer", err.Error())
		return grpcError(s.method, err)
	}
	return s.ServerStream.SendMsg(a)
}
