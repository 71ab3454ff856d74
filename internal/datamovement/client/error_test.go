package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

func TestExplain(t *testing.T) {
	dial := func(n syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", n)}
	}
	for name, tt := range map[string]struct {
		err        error
		dialed     error
		kind       Kind
		text, hint string
	}{
		"invalid":          {pb2.NewError(pb2.ErrorReason_INVALID_FIELD, "source is refused", nil), nil, Invalid, "source is refused", ""},
		"version 1":        {status.Error(codes.PermissionDenied, "no"), nil, Denied, "no", ""},
		"unauthenticated":  {status.Error(codes.Unauthenticated, "who?"), nil, Denied, "who?", ""},
		"limit":            {status.Error(codes.ResourceExhausted, "too much"), nil, Failed, "too much", ""},
		"inside":           {status.Error(codes.Internal, ""), nil, Failed, "the daemon gave no reason", ""},
		"late":             {status.Error(codes.DeadlineExceeded, "late"), nil, TimedOut, "late", ""},
		"client deadline":  {fmt.Errorf("x: %w", context.DeadlineExceeded), nil, TimedOut, "x: context deadline exceeded", ""},
		"client cancelled": {context.Canceled, nil, Interrupted, "context canceled", ""},
		"no socket":        {status.Error(codes.Unavailable, "x"), dial(syscall.ENOENT), Unreachable, "cannot reach the daemon: dial unix: connect: no such file or directory", hintActivated},
		"stale socket":     {status.Error(codes.Unavailable, "x"), dial(syscall.ECONNREFUSED), Unreachable, "cannot reach the daemon: dial unix: connect: connection refused", hintActivated},
		"no permission":    {status.Error(codes.Unavailable, "x"), dial(syscall.EACCES), Denied, "no permission to connect to the socket /s", "check its owner and mode: ls -l /s"},
		"died":             {status.Error(codes.Unavailable, "EOF"), nil, Unreachable, "EOF", hintActivated},
		"unavailable":      {pb2.NewError(pb2.ErrorReason_UNAVAILABLE, "no API server", nil), nil, Unreachable, "no API server", "try again later"},
		"other server":     {status.Error(codes.Unimplemented, "x"), nil, Failed, "the process listening on /s does not serve the Copy Offload API", "set --socket or NNF_DM_SOCKET to the socket of nnf-dm"},
		"not a gRPC error": {errors.New("x"), nil, Failed, "x", ""},
	} {
		c := &Client{o: Options{Socket: "/s"}, dialed: tt.dialed}
		err := c.explain(tt.err)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != tt.kind || e.Text != tt.text || err.Error() != tt.text || hint.Of(err) != tt.hint || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v, hint %q", name, e, hint.Of(err))
		}
		if again := c.explain(err); again != err {
			t.Errorf("%s: explained twice: %v", name, again)
		}
	}
	if err := new(Client).explain(nil); err != nil {
		t.Error(err)
	}
}

// Each reason of the protocol has a text for errors without a message.
func TestReasons(t *testing.T) {
	c := &Client{o: Options{Socket: "/s"}}
	for n, name := range pb2.ErrorReason_name {
		reason := pb2.ErrorReason(n)
		if n == 0 {
			continue
		}
		if reasonTexts[reason] == "" {
			t.Errorf("%s has no text", name)
		}
		err := c.explain(pb2.NewError(reason, "", nil))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Text != reasonTexts[reason] || hint.Of(err) != hints[reason] {
			t.Errorf("%s: %+v, hint %q", name, e, hint.Of(err))
		}
		err = problem(&pb2.Problem{Reason: reason, Message: "why"})
		if p, ok := errors.AsType[*Error](err); !ok || p.Text != "why" || p.Kind != e.Kind || hint.Of(err) != hints[reason] {
			t.Errorf("%s: %+v, hint %q", name, p, hint.Of(err))
		}
	}
	if e, ok := errors.AsType[*Error](problem(nil)); !ok || e.Text == "" || e.Kind != Failed {
		t.Errorf("%+v", e)
	}
}
