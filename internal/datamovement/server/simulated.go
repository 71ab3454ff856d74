package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

// simulated implements version 1 in memory, for tests of clients: without Kubernetes,
// without copying, and without authorisation.
type simulated struct {
	v1.UnimplementedDataMoverServer
	mu       sync.Mutex
	requests map[string]*simRequest
}

type simRequest struct {
	r         *v1.DataMovementCreateRequest
	started   time.Time
	ended     time.Time
	running   bool // a Status has returned RUNNING
	cancelled bool
	reported  bool // a Status has returned CANCELLING
}

// maxSimulated limits the memory. Tests create fewer requests.
const maxSimulated = 100_000

// ServeSimulated serves the simulated service until ctx ends or the daemon is idle.
func ServeSimulated(ctx context.Context, t Transport) error {
	sim := &simulated{requests: make(map[string]*simRequest)}
	return serve(ctx, t, func(g *grpc.Server) { v1.RegisterDataMoverServer(g, sim) }, func() {})
}

func (*simulated) Version(ctx context.Context, e *emptypb.Empty) (*v1.DataMovementVersionResponse, error) {
	return version1{}.Version(ctx, e)
}

func (s *simulated) Create(_ context.Context, r *v1.DataMovementCreateRequest) (*v1.DataMovementCreateResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) >= maxSimulated {
		return &v1.DataMovementCreateResponse{Status: v1.DataMovementCreateResponse_FAILED, Message: "too many simulated requests"}, nil
	}
	uid := newUUID()
	s.requests[uid] = &simRequest{r: r}
	return &v1.DataMovementCreateResponse{Uid: uid, Status: v1.DataMovementCreateResponse_SUCCESS}, nil
}

func (s *simulated) Status(_ context.Context, r *v1.DataMovementStatusRequest) (*v1.DataMovementStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := r.GetUid()
	q := s.requests[uid]
	switch {
	case !isUUID(uid):
		return &v1.DataMovementStatusResponse{State: v1.DataMovementStatusResponse_UNKNOWN_STATE, Status: v1.DataMovementStatusResponse_INVALID,
			Message: fmt.Sprintf("Request %.80s is invalid", uid)}, nil
	case q == nil:
		return &v1.DataMovementStatusResponse{State: v1.DataMovementStatusResponse_UNKNOWN_STATE, Status: v1.DataMovementStatusResponse_NOT_FOUND,
			Message: fmt.Sprintf("Request %s not found", uid)}, nil
	}
	return q.next(uid, time.Now()), nil
}

// next returns the next status: RUNNING, then COMPLETED; after Cancel, CANCELLING, then
// COMPLETED with the result CANCELLED.
func (q *simRequest) next(uid string, now time.Time) *v1.DataMovementStatusResponse {
	out := &v1.DataMovementStatusResponse{
		State: v1.DataMovementStatusResponse_COMPLETED, Status: v1.DataMovementStatusResponse_CANCELLED,
		CommandStatus: &v1.DataMovementCommandStatus{},
	}
	if q.started.IsZero() {
		q.started = now
	}
	switch {
	case q.cancelled && !q.reported:
		q.reported = true
		out.State, out.Status = v1.DataMovementStatusResponse_CANCELLING, v1.DataMovementStatusResponse_UNKNOWN_STATUS
		return out
	case q.cancelled:
		return out
	case !q.running:
		q.running = true
		out.State, out.Status = v1.DataMovementStatusResponse_RUNNING, v1.DataMovementStatusResponse_UNKNOWN_STATUS
		out.Message, out.CommandStatus = q.message(uid, "in progress"), q.command(50, "3.139s", "Copied 1.000 GiB (50%) in 3.139 secs (326.217 MiB/s) 3 secs left ...", now)
		out.StartTime = v1.TimeText(q.started)
		return out
	}
	if q.ended.IsZero() {
		q.ended = now
	}
	out.Status = v1.DataMovementStatusResponse_SUCCESS
	out.Message, out.CommandStatus = q.message(uid, "completed"), q.command(100, "6.755s", "Copied 2.000 GiB (100%) in 6.755 secs (303.182 MiB/s) done", now)
	out.StartTime, out.EndTime = v1.TimeText(q.started), v1.TimeText(q.ended)
	return out
}

func (q *simRequest) message(uid, what string) string {
	text := ""
	if q.r.GetStoreStdout() {
		text = "Request " + uid + " " + what
	}
	if q.r.GetLogStdout() {
		text += " (with logging)"
	}
	return text
}

func (q *simRequest) command(percent int32, elapsed, line string, now time.Time) *v1.DataMovementCommandStatus {
	if q.r.GetDryrun() {
		return &v1.DataMovementCommandStatus{Command: "true"}
	}
	return &v1.DataMovementCommandStatus{
		Command: "mpirun -np 1 dcp --progress 1 src dest", Progress: percent, ElapsedTime: elapsed,
		LastMessage: line, LastMessageTime: v1.TimeText(now),
	}
}

func (s *simulated) Cancel(_ context.Context, r *v1.DataMovementCancelRequest) (*v1.DataMovementCancelResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := r.GetUid()
	q := s.requests[uid]
	switch {
	case !isUUID(uid):
		return &v1.DataMovementCancelResponse{Status: v1.DataMovementCancelResponse_INVALID, Message: fmt.Sprintf("Cancel Request %.80s is invalid", uid)}, nil
	case q == nil:
		return &v1.DataMovementCancelResponse{Status: v1.DataMovementCancelResponse_NOT_FOUND, Message: "Request " + uid + " not found"}, nil
	}
	q.cancelled, q.reported = true, false
	return &v1.DataMovementCancelResponse{Status: v1.DataMovementCancelResponse_SUCCESS, Message: "Cancel Request " + uid + " initiated successfully"}, nil
}

func (s *simulated) Delete(_ context.Context, r *v1.DataMovementDeleteRequest) (*v1.DataMovementDeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uid := r.GetUid()
	switch {
	case !isUUID(uid):
		return &v1.DataMovementDeleteResponse{Status: v1.DataMovementDeleteResponse_INVALID, Message: fmt.Sprintf("Request %.80s is invalid", uid)}, nil
	case s.requests[uid] == nil:
		return &v1.DataMovementDeleteResponse{Status: v1.DataMovementDeleteResponse_NOT_FOUND, Message: "Request " + uid + " not found"}, nil
	}
	delete(s.requests, uid)
	return &v1.DataMovementDeleteResponse{Status: v1.DataMovementDeleteResponse_SUCCESS, Message: "Request " + uid + " deleted successfully"}, nil
}

func (s *simulated) List(context.Context, *v1.DataMovementListRequest) (*v1.DataMovementListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := new(v1.DataMovementListResponse)
	for uid := range s.requests {
		out.Uids = append(out.Uids, uid)
	}
	slices.Sort(out.Uids)
	return out, nil
}

// newUUID returns a random UUID, version 4 of RFC 9562.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hexa := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if dash != (c == '-') || !dash && !hexa {
			return false
		}
	}
	return true
}
