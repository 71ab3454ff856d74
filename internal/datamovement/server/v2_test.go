package server

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

func TestVersion2(t *testing.T) {
	r := startServer(t)
	m, ctx := v2.NewDataMoverClient(r.dial(t)), t.Context()
	w := &v2.Workflow{Name: "job7", Namespace: "default"}
	batch := &v2.CreateBatchRequest{Workflow: w, RequestKey: "k", Pairs: []*v2.CopyPair{
		{Source: mount0 + "/a", Destination: "/lus/global/a"}, {Source: mount0 + "/b", Destination: "/nowhere/b"}, {Source: mount0 + "/c", Destination: "/lus/global/c"},
	}}
	b, err := m.CreateBatch(ctx, batch)
	if err != nil || len(b.Results) != 3 || b.Uid == "" || b.Results[0].Uid == "" || b.Results[1].Error.GetReason() != v2.ErrorReason_DESTINATION_NOT_FOUND {
		t.Fatalf("batch %v, %v", b, err)
	}
	if again, err := m.CreateBatch(ctx, batch); err != nil || again.Uid != b.Uid || again.Results[2].Uid != b.Results[2].Uid {
		t.Errorf("repeated %v, %v", again, err)
	}
	watch, err := m.Watch(ctx, &v2.WatchRequest{Workflow: w, Uids: []string{b.Uid}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil || len(first.Movements) != 2 || first.Movements[0].State != v2.MovementState_MOVEMENT_STATE_PENDING || first.Movements[0].BatchUid != b.Uid {
		t.Fatalf("first %v, %v", first, err)
	}
	if _, err := m.Delete(ctx, &v2.DeleteRequest{Workflow: w, Uids: []string{b.Uid}}); reason(err) != v2.ErrorReason_MOVEMENT_ACTIVE {
		t.Errorf("delete: %v", err)
	}
	r.set(b.Results[0].Uid, running)
	next, err := watch.Recv()
	if err != nil || len(next.Movements) != 1 || next.Movements[0].State != v2.MovementState_MOVEMENT_STATE_RUNNING {
		t.Errorf("next %v, %v", next, err)
	}
	if c, err := m.Cancel(ctx, &v2.CancelRequest{Workflow: w, Uids: []string{b.Uid}}); err != nil || len(c.Uids) != 2 {
		t.Errorf("cancel %v, %v", c, err)
	}
	r.set(b.Results[0].Uid, finished(nnf.MovementCancelled))
	for err = nil; err == nil; {
		_, err = watch.Recv()
	}
	if err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	// One was cancelled before its start, and has a tombstone.
	for uid, n := range map[string]int{b.Results[2].Uid: 1, b.Uid: 2} {
		ended, err := m.Wait(ctx, &v2.WaitRequest{Workflow: w, Uids: []string{uid}})
		if err != nil || len(ended.Movements) != n || ended.Movements[0].Result != v2.MovementResult_MOVEMENT_RESULT_CANCELLED {
			t.Errorf("wait %v, %v", ended, err)
		}
	}
	if d, err := m.Delete(ctx, &v2.DeleteRequest{Workflow: w, Uids: []string{b.Uid}}); err != nil || len(d.Uids) != 2 {
		t.Errorf("delete %v, %v", d, err)
	}
	if _, err := m.Wait(ctx, &v2.WaitRequest{Workflow: w, Uids: []string{b.Uid}}); reason(err) != v2.ErrorReason_MOVEMENT_NOT_FOUND {
		t.Errorf("wait for a deleted data movement: %v", err)
	}
}

// Errors for empty requests of version 2 name the missing field.
func TestEmptyRequests2(t *testing.T) {
	r := startServer(t)
	m, ctx := v2.NewDataMoverClient(r.dial(t)), within(t, soon)
	w := &v2.Workflow{Name: "job7", Namespace: "default"}
	for name, call := range map[string]func() error{
		"batch":           func() error { _, err := m.CreateBatch(ctx, nil); return err },
		"batch, no pairs": func() error { _, err := m.CreateBatch(ctx, &v2.CreateBatchRequest{Workflow: w}); return err },
		"batch, no workflow": func() error {
			_, err := m.CreateBatch(ctx, &v2.CreateBatchRequest{Pairs: []*v2.CopyPair{nil}})
			return err
		},
		"wait":            func() error { _, err := m.Wait(ctx, nil); return err },
		"cancel":          func() error { _, err := m.Cancel(ctx, nil); return err },
		"cancel, no uids": func() error { _, err := m.Cancel(ctx, &v2.CancelRequest{Workflow: w}); return err },
		"delete":          func() error { _, err := m.Delete(ctx, nil); return err },
		"delete, no uids": func() error { _, err := m.Delete(ctx, &v2.DeleteRequest{Workflow: w}); return err },
		"watch": func() error {
			s, err := m.Watch(ctx, nil)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.InvalidArgument || reason(err) != v2.ErrorReason_INVALID_FIELD {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A Watch of a workflow without movements sends an empty message and ends.
	s, err := m.Watch(ctx, &v2.WatchRequest{Workflow: w})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.Recv(); err != nil || len(first.Movements) != 0 {
		t.Errorf("%v, %v", first, err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// The key of a batch becomes a derived key of each pair. The caller does not know it, and
// a refusal does not contain it.
func TestBatchKeyReused(t *testing.T) {
	m := v2.NewDataMoverClient(startServer(t).dial(t))
	r := &v2.CreateBatchRequest{Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}, RequestKey: "my-key", Pairs: []*v2.CopyPair{
		{Source: mount0 + "/a", Destination: "/lus/global/a"},
	}}
	if b, err := m.CreateBatch(t.Context(), r); err != nil || b.Results[0].Error != nil {
		t.Fatalf("%v %v", b, err)
	}
	r.Pairs[0].Source = mount0 + "/b"
	b, err := m.CreateBatch(t.Context(), r)
	if err != nil || b.Uid != "" || b.Results[0].Error.GetReason() != v2.ErrorReason_INVALID_FIELD || !strings.Contains(b.Results[0].Error.GetMessage(), "request_key is refused: data movement") || !strings.Contains(b.Results[0].Error.GetMessage(), "a different source") {
		t.Errorf("%v %v", b, err)
	}
}

// The initial statuses are sent in pages, completely and in order.
func TestWatchPages(t *testing.T) {
	r := startServer(t, func(o *Options) { o.Settings.Limits.Waiters = 100 })
	const n = 3*pageStates + 1
	r.many(n)
	stream, err := v2.NewDataMoverClient(r.dial(t)).Watch(t.Context(), &v2.WatchRequest{Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := stream.Header(); err != nil || !slices.Equal(h[v2.HeaderMovements], []string{strconv.Itoa(n)}) {
		t.Errorf("header %v, %v", h, err)
	}
	last, got := "", 0
	for got < n {
		page, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d: %v", got, err)
		}
		if len(page.Movements) > pageStates || proto.Size(page) > 2*pageBytes || len(page.Movements) == 0 {
			t.Errorf("%d statuses, %d bytes in one message", len(page.Movements), proto.Size(page))
		}
		for _, m := range page.Movements {
			if m.Uid <= last {
				t.Errorf("%s after %s", m.Uid, last)
			}
			last = m.Uid
			got++
		}
	}
	r.set(last, running)
	if next, err := stream.Recv(); err != nil || len(next.Movements) != 1 || next.Movements[0].Uid != last {
		t.Errorf("the next: %v, %v", next, err)
	}
}

// A movement of another user and a missing one get identical responses.
func TestHiddenIsMissingV2(t *testing.T) {
	missing := datamovement.MovementNotFound("u")
	a, b := errorV2(datamovement.Verdict{}.Err(missing)), errorV2(missing)
	if status.Convert(a).String() != status.Convert(b).String() || status.Code(a) != codes.NotFound {
		t.Error(a, b)
	}
	r, meta := v2.Reason(errorV2(datamovement.Invalid("slots", "x")))
	if r != v2.ErrorReason_INVALID_FIELD || meta["field"] != "slots" {
		t.Error(r, meta)
	}
}
