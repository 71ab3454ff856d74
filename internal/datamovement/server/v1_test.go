package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// Every field of a request is decoded, and none is required.
func TestRequestV1(t *testing.T) {
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(KeyMetadata, "k"))
	got := requestV1(ctx, &v1.DataMovementCreateRequest{
		Workflow: &v1.DataMovementWorkflow{Name: "n", Namespace: "ns"}, Source: "s", Destination: "d", Dryrun: true, DcpOptions: "do", LogStdout: true, StoreStdout: true,
		Slots: 3, MaxSlots: -1, Profile: "p", MpirunOptions: "mo",
	})
	want := datamovement.Request{
		Workflow: datamovement.WorkflowRef{Name: "n", Namespace: "ns"}, Source: "s", Destination: "d", Dryrun: true, DCPOptions: "do", MPIRunOptions: "mo",
		LogStdout: true, StoreStdout: true, Slots: 3, MaxSlots: -1, Profile: "p", Key: "k",
	}
	if got != want {
		t.Errorf("%+v", got)
	}
	for _, r := range []*v1.DataMovementCreateRequest{nil, {}} {
		if got := requestV1(t.Context(), r); got != (datamovement.Request{}) {
			t.Errorf("%+v", got)
		}
	}
}

// Every error in version 1: either in the response with a status and the text, or as a
// gRPC error with the same code and text as in version 2.
func TestErrorsV1(t *testing.T) {
	type (
		create = v1.DataMovementCreateResponse_Status
		del    = v1.DataMovementDeleteResponse_Status
		cancel = v1.DataMovementCancelResponse_Status
		state  = v1.DataMovementStatusResponse_Status
	)
	const (
		createFailed  = v1.DataMovementCreateResponse_FAILED
		deleteUnknown = v1.DataMovementDeleteResponse_UNKNOWN
		cancelFailed  = v1.DataMovementCancelResponse_FAILED
		unknown       = v1.DataMovementStatusResponse_UNKNOWN_STATUS
	)
	failed := func(reason v2.ErrorReason) error { return datamovement.NewFault(datamovement.ErrFailed, reason, "x") }
	hidden := datamovement.Verdict{Outcome: datamovement.Hidden, Reason: "why"}
	for _, c := range []struct {
		name   string
		err    error
		code   codes.Code // OK: in the response
		create create
		del    del
		cancel cancel
		status state
	}{
		{"invalid", datamovement.Invalid("slots", "x"), codes.OK, v1.DataMovementCreateResponse_INVALID, v1.DataMovementDeleteResponse_INVALID, v1.DataMovementCancelResponse_INVALID, v1.DataMovementStatusResponse_INVALID},
		{"wrapped", fmt.Errorf("y: %w", datamovement.Invalid("slots", "x")), codes.OK, v1.DataMovementCreateResponse_INVALID, v1.DataMovementDeleteResponse_INVALID, v1.DataMovementCancelResponse_INVALID, v1.DataMovementStatusResponse_INVALID},
		{"failed", failed(v2.ErrorReason_MOUNT_NOT_FOUND), codes.OK, createFailed, deleteUnknown, cancelFailed, unknown},
		{"no movement", datamovement.MovementNotFound("x"), codes.OK, createFailed, v1.DataMovementDeleteResponse_NOT_FOUND, v1.DataMovementCancelResponse_NOT_FOUND, v1.DataMovementStatusResponse_NOT_FOUND},
		{"hidden", hidden.Err(datamovement.MovementNotFound("x")), codes.OK, createFailed, v1.DataMovementDeleteResponse_NOT_FOUND, v1.DataMovementCancelResponse_NOT_FOUND, v1.DataMovementStatusResponse_NOT_FOUND},
		{"active", datamovement.StillActive("x"), codes.OK, createFailed, v1.DataMovementDeleteResponse_ACTIVE, cancelFailed, unknown},
		{"internal", failed(v2.ErrorReason_INTERNAL), codes.Internal, 0, 0, 0, 0},
		{"denied", datamovement.Verdict{Outcome: datamovement.Denied, Reason: "x"}.Err(nil), codes.PermissionDenied, 0, 0, 0, 0},
		{"limit", datamovement.LimitExceeded("limits.create_burst"), codes.ResourceExhausted, 0, 0, 0, 0},
		{"caller gone", context.Canceled, codes.Canceled, 0, 0, 0, 0},
		{"timeout", context.DeadlineExceeded, codes.DeadlineExceeded, 0, 0, 0, 0},
		{"API server", errors.New("secret"), codes.Unavailable, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := datamovement.Explain(c.err).Error()
			created, err1 := createV1("", c.err)
			deleted, err2 := deleteV1(c.err)
			cancelled, err3 := cancelV1(c.err)
			shown, err4 := statusV1(c.err)
			for _, err := range []error{err1, err2, err3, err4, errorV1(c.err), errorV2(c.err)} {
				if c.code != codes.OK && (status.Code(err) != c.code || status.Convert(err).Message() != text) {
					t.Errorf("%v, want %v %q", err, c.code, text)
				}
			}
			if c.code != codes.OK {
				return
			}
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Fatal(err)
			}
			if created.Status != c.create || created.Message != text || deleted.Status != c.del || deleted.Message != text || cancelled.Status != c.cancel || cancelled.Message != text {
				t.Errorf("%v; %v; %v", created, deleted, cancelled)
			}
			if c.status == v1.DataMovementStatusResponse_NOT_FOUND {
				text = ""
			}
			if shown.State != v1.DataMovementStatusResponse_UNKNOWN_STATE || shown.Status != c.status || shown.Message != text {
				t.Errorf("%v", shown)
			}
		})
	}
	created, err1 := createV1("u", nil)
	deleted, err2 := deleteV1(nil)
	cancelled, err3 := cancelV1(nil)
	if created.GetUid() != "u" || created.Status != v1.DataMovementCreateResponse_SUCCESS || deleted.GetStatus() != v1.DataMovementDeleteResponse_SUCCESS ||
		cancelled.GetStatus() != v1.DataMovementCancelResponse_SUCCESS || created.Message+deleted.Message+cancelled.Message != "" || errors.Join(err1, err2, err3, errorV1(nil), errorV2(nil)) != nil {
		t.Errorf("%v %v; %v %v; %v %v", created, err1, deleted, err2, cancelled, err3)
	}
}

func TestVersion1(t *testing.T) {
	r := startServer(t)
	m, ctx := v1.NewDataMoverClient(r.dial(t)), t.Context()
	if v, err := m.Version(ctx, new(emptypb.Empty)); err != nil || len(v.ApiVersions) != 1 || v.ApiVersions[0] != "1" {
		t.Errorf("version %v, %v", v, err)
	}
	c, err := m.Create(ctx, wireWish())
	if err != nil || c.Status != v1.DataMovementCreateResponse_SUCCESS || c.Uid == "" || c.Message != "" {
		t.Fatalf("create %v, %v", c, err)
	}
	st, err := m.Status(ctx, &v1.DataMovementStatusRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || st.State != v1.DataMovementStatusResponse_PENDING || st.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS || st.CommandStatus != nil {
		t.Errorf("status %v, %v", st, err)
	}
	d, err := m.Delete(ctx, &v1.DataMovementDeleteRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || d.Status != v1.DataMovementDeleteResponse_ACTIVE {
		t.Errorf("delete %v, %v", d, err)
	}
	ca, err := m.Cancel(ctx, &v1.DataMovementCancelRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || ca.Status != v1.DataMovementCancelResponse_SUCCESS {
		t.Errorf("cancel %v, %v", ca, err)
	}
	if d, err = m.Delete(ctx, &v1.DataMovementDeleteRequest{Workflow: wire7, Uid: c.Uid}); err != nil || d.Status != v1.DataMovementDeleteResponse_SUCCESS {
		t.Errorf("delete %v, %v", d, err)
	}
	if l, err := m.List(ctx, &v1.DataMovementListRequest{Workflow: wire7}); err != nil || len(l.Uids) != 0 {
		t.Errorf("list %v, %v", l, err)
	}
}

// Empty requests of early clients must not crash the daemon.
func TestEmptyRequests(t *testing.T) {
	m, ctx := v1.NewDataMoverClient(startServer(t).dial(t)), t.Context()
	if c, err := m.Create(ctx, new(v1.DataMovementCreateRequest)); err != nil || c.Status != v1.DataMovementCreateResponse_INVALID || !strings.Contains(c.Message, "workflow") {
		t.Errorf("create %v, %v", c, err)
	}
	if s, err := m.Status(ctx, new(v1.DataMovementStatusRequest)); err != nil || s.Status != v1.DataMovementStatusResponse_INVALID || s.State != v1.DataMovementStatusResponse_UNKNOWN_STATE {
		t.Errorf("status %v, %v", s, err)
	}
	if c, err := m.Cancel(ctx, new(v1.DataMovementCancelRequest)); err != nil || c.Status != v1.DataMovementCancelResponse_INVALID {
		t.Errorf("cancel %v, %v", c, err)
	}
	if d, err := m.Delete(ctx, new(v1.DataMovementDeleteRequest)); err != nil || d.Status != v1.DataMovementDeleteResponse_INVALID {
		t.Errorf("delete %v, %v", d, err)
	}
	if _, err := m.List(ctx, new(v1.DataMovementListRequest)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("list %v", err)
	}
}

func TestRequestKey(t *testing.T) {
	m := v1.NewDataMoverClient(startServer(t).dial(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), KeyMetadata, "k1")
	a, err1 := m.Create(ctx, wireWish())
	b, err2 := m.Create(ctx, wireWish())
	if err1 != nil || err2 != nil || a.Uid != b.Uid || a.Uid == "" {
		t.Errorf("%v %v; %v %v", a, err1, b, err2)
	}
}

// The same failure in both versions: in version 1, application errors are in the
// response, and all others are gRPC errors.
func TestBothVersions(t *testing.T) {
	for name, tt := range map[string]struct {
		setUp  func(*testServer)
		change func(*v1.DataMovementCreateRequest)
		status v1.DataMovementCreateResponse_Status // version 1, when code is OK
		code   codes.Code                           // version 1
		reason v2.ErrorReason                       // version 2
		code2  codes.Code                           // of the whole; OK: of the pair
	}{
		"fine":          {status: v1.DataMovementCreateResponse_SUCCESS},
		"invalid":       {change: func(r *v1.DataMovementCreateRequest) { r.DcpOptions = ";" }, status: v1.DataMovementCreateResponse_INVALID, reason: v2.ErrorReason_INVALID_FIELD, code2: codes.InvalidArgument},
		"destination":   {change: func(r *v1.DataMovementCreateRequest) { r.Destination = "/home/x" }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_DESTINATION_NOT_FOUND},
		"profile":       {change: func(r *v1.DataMovementCreateRequest) { r.Profile = "x" }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_PROFILE_NOT_FOUND},
		"xfs":           {setUp: func(r *testServer) { r.mounts = nil; r.mount(node, mount0, "xfs") }, status: v1.DataMovementCreateResponse_INVALID, reason: v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED},
		"foreign":       {setUp: func(r *testServer) { r.uid.Store(1002) }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_WORKFLOW_NOT_FOUND, code2: codes.NotFound},
		"state":         {setUp: func(r *testServer) { r.workflow.Status.State = "DataIn" }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_WORKFLOW_STATE, code2: codes.FailedPrecondition},
		"denied":        {setUp: func(r *testServer) { r.workflow.Spec.GroupID = 7 }, code: codes.PermissionDenied, reason: v2.ErrorReason_ACCESS_DENIED, code2: codes.PermissionDenied},
		"down":          {setUp: func(r *testServer) { r.refuse("get workflows", errBroken) }, code: codes.Unavailable, reason: v2.ErrorReason_UNAVAILABLE, code2: codes.Unavailable},
		"no permission": {setUp: func(r *testServer) { r.refuse("create", errForbidden) }, code: codes.Internal, reason: v2.ErrorReason_INTERNAL},
	} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t)
			if tt.setUp != nil {
				tt.setUp(r)
			}
			q := wireWish()
			if tt.change != nil {
				tt.change(q)
			}
			ctx, conn := within(t, soon), r.dial(t)
			v1, err := v1.NewDataMoverClient(conn).Create(ctx, q)
			if status.Code(err) != tt.code || err == nil && (v1.Status != tt.status || (v1.Message == "") != (tt.status == 0)) {
				t.Errorf("version 1: %v, %v", v1, err)
			}
			v2, err := v2.NewDataMoverClient(conn).CreateBatch(ctx, &v2.CreateBatchRequest{
				Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}, Pairs: []*v2.CopyPair{{Source: q.Source, Destination: q.Destination}},
				Options: &v2.CopyOptions{DcpOptions: q.DcpOptions, Profile: q.Profile},
			})
			if status.Code(err) != tt.code2 || err != nil && reason(err) != tt.reason {
				t.Errorf("version 2: %v", err)
			}
			if err == nil && v2.Results[0].Error.GetReason() != tt.reason {
				t.Errorf("version 2: %v", v2)
			}
			for _, text := range []string{v1.String(), v2.String(), status.Convert(err).Message()} {
				if strings.Contains(text, "secret") {
					t.Errorf("the error contains the server's text: %s", text)
				}
			}
		})
	}
}

// In version 2 a field that is not set means as in the profile. In version 1 it is 0 and
// means none, as for all clients that have never set it.
func TestSlots(t *testing.T) {
	r := startServer(t)
	ctx, conn := within(t, soon), r.dial(t)
	zero, four := int32(0), int32(4)
	for name, tt := range map[string]struct {
		options *v2.CopyOptions
		want    [2]int // -1: not in the object
	}{
		"no options": {nil, [2]int{-1, -1}},
		"not set":    {&v2.CopyOptions{}, [2]int{-1, -1}},
		"none":       {&v2.CopyOptions{Slots: &zero, MaxSlots: &zero}, [2]int{0, 0}},
		"some":       {&v2.CopyOptions{Slots: &four}, [2]int{4, -1}},
	} {
		b, err := v2.NewDataMoverClient(conn).CreateBatch(ctx, &v2.CreateBatchRequest{
			Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}, Options: tt.options, Pairs: []*v2.CopyPair{{Source: usualRequest.Source, Destination: usualRequest.Destination}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.slots(b.Results[0].Uid); got != tt.want {
			t.Errorf("version 2, %s: %v, want %v", name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		slots int32
		want  [2]int
	}{{0, [2]int{0, -1}}, {-1, [2]int{-1, -1}}, {4, [2]int{4, -1}}} {
		q := wireWish()
		q.Slots = tt.slots
		c, err := v1.NewDataMoverClient(conn).Create(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.slots(c.Uid); got != tt.want {
			t.Errorf("version 1, %d: %v, want %v", tt.slots, got, tt.want)
		}
	}
}
