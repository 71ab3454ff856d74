package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

func TestSimulated(t *testing.T) {
	sim := &simulated{requests: make(map[string]*simRequest)}
	ctx := t.Context()
	c, _ := sim.Create(ctx, &v1.DataMovementCreateRequest{StoreStdout: true})
	status := func() *v1.DataMovementStatusResponse {
		s, _ := sim.Status(ctx, &v1.DataMovementStatusRequest{Uid: c.Uid})
		return s
	}
	if s := status(); s.State != v1.DataMovementStatusResponse_RUNNING || s.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS ||
		s.EndTime != "" || s.CommandStatus.Progress != 50 || s.Message != "Request "+c.Uid+" in progress" {
		t.Errorf("first %v", s)
	}
	if s := status(); s.State != v1.DataMovementStatusResponse_COMPLETED || s.Status != v1.DataMovementStatusResponse_SUCCESS || s.EndTime == "" || s.CommandStatus.Progress != 100 {
		t.Errorf("second %v", s)
	}
	sim.Cancel(ctx, &v1.DataMovementCancelRequest{Uid: c.Uid})
	if s := status(); s.State != v1.DataMovementStatusResponse_CANCELLING || s.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS {
		t.Errorf("cancelling %v", s)
	}
	if s := status(); s.State != v1.DataMovementStatusResponse_COMPLETED || s.Status != v1.DataMovementStatusResponse_CANCELLED {
		t.Errorf("cancelled %v", s)
	}
	if d, _ := sim.Delete(ctx, &v1.DataMovementDeleteRequest{Uid: c.Uid}); d.Status != v1.DataMovementDeleteResponse_SUCCESS || d.Message != "Request "+c.Uid+" deleted successfully" {
		t.Errorf("delete %v", d)
	}
	for uid, want := range map[string]v1.DataMovementStatusResponse_Status{c.Uid: v1.DataMovementStatusResponse_NOT_FOUND, "nonsense": v1.DataMovementStatusResponse_INVALID} {
		if s, _ := sim.Status(ctx, &v1.DataMovementStatusRequest{Uid: uid}); s.Status != want {
			t.Errorf("%s: %v", uid, s)
		}
	}
}

func TestUUID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newUUID()
		if !isUUID(id) || seen[id] || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
	good := "01234567-89ab-4cde-8f01-23456789abcd"
	if !isUUID(good) || !isUUID(strings.ToUpper(good)) {
		t.Error("a valid UUID is refused")
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ReplaceAll(good, "-", "_"), "g" + good[1:], "0-234567089ab-4cde-8f01-23456789abcd", strings.Repeat("-", 36), strings.Repeat("0", 36)} {
		if isUUID(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The texts of the simulated service, for requests of all kinds.
func TestSimulatedTexts(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		r       *v1.DataMovementCreateRequest
		first   string // U is replaced by the uid
		second  string
		command string
	}{
		{&v1.DataMovementCreateRequest{}, "", "", "mpirun -np 1 dcp --progress 1 src dest"},
		{&v1.DataMovementCreateRequest{StoreStdout: true}, "Request U in progress", "Request U completed", "mpirun -np 1 dcp --progress 1 src dest"},
		{&v1.DataMovementCreateRequest{StoreStdout: true, LogStdout: true}, "Request U in progress (with logging)", "Request U completed (with logging)", "mpirun -np 1 dcp --progress 1 src dest"},
		{&v1.DataMovementCreateRequest{Dryrun: true}, "", "", "true"},
	} {
		q := &simRequest{r: tt.r}
		first, second, third := q.next("U", now), q.next("U", now.Add(time.Second)), q.next("U", now.Add(time.Hour))
		if first.Message != tt.first || second.Message != tt.second || first.CommandStatus.Command != tt.command {
			t.Errorf("%v: %v; %v", tt.r, first, second)
		}
		if dry := tt.r.Dryrun; dry != (first.CommandStatus.Progress == 0) || dry != (second.CommandStatus.ElapsedTime == "") {
			t.Errorf("%v: %v; %v", tt.r, first.CommandStatus, second.CommandStatus)
		}
		if first.StartTime == "" || first.EndTime != "" || second.EndTime != v1.TimeText(now.Add(time.Second)) || third.EndTime != second.EndTime || third.StartTime != first.StartTime {
			t.Errorf("times: %v; %v; %v", first, second, third)
		}
	}
}

func TestSimulatedNames(t *testing.T) {
	sim, ctx := &simulated{requests: make(map[string]*simRequest)}, t.Context()
	missing := newUUID()
	for uid, want := range map[string]struct {
		status v1.DataMovementStatusResponse_Status
		cancel v1.DataMovementCancelResponse_Status
		delete v1.DataMovementDeleteResponse_Status
		text   string // of all three responses
	}{
		"nonsense": {v1.DataMovementStatusResponse_INVALID, v1.DataMovementCancelResponse_INVALID, v1.DataMovementDeleteResponse_INVALID, "equest nonsense is invalid"},
		missing:    {v1.DataMovementStatusResponse_NOT_FOUND, v1.DataMovementCancelResponse_NOT_FOUND, v1.DataMovementDeleteResponse_NOT_FOUND, "Request " + missing + " not found"},
	} {
		s, _ := sim.Status(ctx, &v1.DataMovementStatusRequest{Uid: uid})
		c, _ := sim.Cancel(ctx, &v1.DataMovementCancelRequest{Uid: uid})
		d, _ := sim.Delete(ctx, &v1.DataMovementDeleteRequest{Uid: uid})
		if s.Status != want.status || s.State != v1.DataMovementStatusResponse_UNKNOWN_STATE || s.CommandStatus != nil || c.Status != want.cancel || d.Status != want.delete {
			t.Errorf("%s: %v; %v; %v", uid, s, c, d)
		}
		for _, text := range []string{s.Message, c.Message, d.Message} {
			if !strings.Contains(text, want.text) {
				t.Errorf("%s: %q", uid, text)
			}
		}
	}
	var uids []string
	for range 3 {
		c, _ := sim.Create(ctx, &v1.DataMovementCreateRequest{})
		uids = append(uids, c.Uid)
	}
	slices.Sort(uids)
	if l, _ := sim.List(ctx, nil); !slices.Equal(l.Uids, uids) {
		t.Errorf("%q, want %q", l.Uids, uids)
	}
	// A repeated Cancel restarts its sequence of states.
	for range 2 {
		if c, _ := sim.Cancel(ctx, &v1.DataMovementCancelRequest{Uid: uids[0]}); c.Status != v1.DataMovementCancelResponse_SUCCESS || c.Message != "Cancel Request "+uids[0]+" initiated successfully" {
			t.Errorf("%v", c)
		}
		for _, want := range []v1.DataMovementStatusResponse_State{v1.DataMovementStatusResponse_CANCELLING, v1.DataMovementStatusResponse_COMPLETED, v1.DataMovementStatusResponse_COMPLETED} {
			if s, _ := sim.Status(ctx, &v1.DataMovementStatusRequest{Uid: uids[0]}); s.State != want || s.CommandStatus == nil || s.CommandStatus.Command != "" {
				t.Errorf("%v, want %s", s, want)
			}
		}
	}
}

// A test that never deletes does not exhaust the memory.
func TestSimulatedLimit(t *testing.T) {
	sim := &simulated{requests: make(map[string]*simRequest)}
	for len(sim.requests) < maxSimulated {
		sim.requests[newUUID()] = nil
	}
	if c, _ := sim.Create(t.Context(), &v1.DataMovementCreateRequest{}); c.Status != v1.DataMovementCreateResponse_FAILED || c.Uid != "" {
		t.Errorf("%v", c)
	}
}
