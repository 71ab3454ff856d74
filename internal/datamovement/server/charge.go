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
	// patience is how long an answer waits for space: a client that reads gets its
	// answers within that time even if others of the same user do not read.
	patience = 5 * time.Second
	// smallAnswer is the size up to which perRequest covers the only answer of a
	// call.
	smallAnswer = 1 << 10
	// leastBuffer is the least capacity of an encoded answer. gRPC tells when it is
	// done with a buffer of more than 1 KiB only.
	leastBuffer = 2 << 10
	// waitingAnswers is how many calls of one user wait for space. What they have put
	// together is not counted yet.
	waitingAnswers = 64
)

// errNoMemory is the error for a user that holds too much memory.
var errNoMemory = datamovement.LimitExceeded("limits.memory_per_user")

// charge counts the memory that one call holds for its user beside the request:
// what it follows, and its answers from their encoding until gRPC has written
// them or the client is gone. HTTP/2's flow control lets a client leave answers
// unread for as long as it likes. A nil *charge counts nothing.
type charge struct {
	conn    *meteredConn
	owed    int64 // under the mutex of all meters
	closed  bool  // likewise: nothing is owed any more
	ordered int64 // what order has taken for the next answer; the call's goroutine has it
}

type chargeKey struct{}

func chargeOf(ctx context.Context) *charge {
	c, _ := ctx.Value(chargeKey{}).(*charge)
	return c
}

// take waits until there is space for so many bytes, but not for long. The error
// is errNoMemory, or that of ctx.
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
			c.owed += bytes
			c.conn.owed += bytes
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
			timer = time.NewTimer(cmp.Or(m.all.wait, patience))
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

// give gives back what take has taken. It may be called late.
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
	c.owed -= bytes
	c.conn.owed -= bytes
	m.change(-bytes)
}

// close gives everything back, for a call whose answers gRPC has dropped.
func (c *charge) close() {
	m := c.conn.id.meter
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if !c.closed && !c.conn.gone {
		m.change(-c.owed)
		c.conn.owed -= c.owed
	}
	c.closed = true
}

// order reserves space for an answer that is about to be put together.
func (c *charge) order(ctx context.Context, bytes int64) error {
	if c == nil {
		return nil
	}
	err := c.take(ctx, bytes)
	if err == nil {
		c.ordered += bytes
	}
	return err
}

// answer returns what to send instead of message, so that it is counted until
// gRPC has written it. only tells that the call has no other answer.
func (c *charge) answer(ctx context.Context, message any, only bool) (any, error) {
	m, ok := message.(proto.Message)
	if c == nil || !ok {
		return message, nil
	}
	size := proto.Size(m)
	if only && size <= smallAnswer && c.ordered == 0 {
		return message, nil
	}
	bytes := int64(max(size, leastBuffer))
	if bytes > c.ordered {
		if err := c.take(ctx, bytes-c.ordered); err != nil {
			c.give(c.ordered)
			c.ordered = 0
			return nil, err
		}
	}
	bytes, c.ordered = max(bytes, c.ordered), 0
	return &answer{charge: c, message: m, size: size, bytes: bytes}, nil
}

// answer is a message of which so many bytes are counted. As a mem.BufferPool it
// learns when its encoded form is not needed any more.
type answer struct {
	charge  *charge
	message proto.Message
	size    int
	bytes   int64
}

// Get implements mem.BufferPool; it is never called.
func (a *answer) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool.
func (a *answer) Put(*[]byte) { a.charge.give(a.bytes) }

// answerCodec encodes answers, and everything else like the codec within.
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

// counted is a stream whose context has the call, and whose answers are counted.
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
