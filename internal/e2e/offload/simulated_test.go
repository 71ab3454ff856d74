package offload

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var simulatedBehaviours = []behaviour{
	{"the simulated service", "5/version 5/create 5/status-first 5/status-later 5/status-unknown 5/status-invalid 5/list 5/delete 9.27", one, simulatedCopies},
	{"simulated cancels", "5/cancel 5/status-cancelled 9.27", one, simulatedCancels},
}

// simulate starts the daemon without an API server.
func (s *env) simulate() {
	s.t.Helper()
	s.launch(lab.Spec{Program: "nnf-dm", Args: []string{"--simulated", "--socket=" + s.Socket, "--config=/dev/null", "--log-format=json"}})
	s.Ready(s.d)
	s.me, s.me2 = s.as(eve), s.as2(eve) // any user
}

var (
	uuid4   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	unknown = "11110000-0000-4000-8000-000000000000"
)

func simulatedCopies(s *env) {
	s.simulate()
	if v, err := s.me.Version(s.ctx(), nil); err != nil || !slices.Equal(v.ApiVersions, []string{"1"}) || v.Version == "" {
		s.t.Errorf("version: %v, %v", v, err)
	}
	_, err := s.me2.Wait(s.ctx(), &pb2.WaitRequest{})
	s.code("version 2", err, codes.Unimplemented)
	var made []string
	for _, e := range []struct {
		message string
		w       *createRequest
	}{
		{"", &createRequest{Source: "a", Destination: "b"}}, // the paths are not checked
		{"Request UID DONE", &createRequest{StoreStdout: true}},
		{" (with logging)", &createRequest{LogStdout: true}},
		{"Request UID DONE (with logging)", &createRequest{StoreStdout: true, LogStdout: true}},
		{"", &createRequest{Dryrun: true}},
	} {
		created, err := s.me.Create(s.ctx(), e.w)
		if err != nil || created.Status != createOK || !uuid4.MatchString(created.Uid) || created.Message != "" {
			s.t.Fatalf("create: %v, %v, want a random UUID", created, err)
		}
		uid := created.Uid
		made = append(made, uid)
		says := func(what string) string { return strings.NewReplacer("UID", uid, "DONE", what).Replace(e.message) }
		first := s.status(uid, 3600)
		s.simulated(first, isRunning, unknownStatus, says("in progress"), 50, "3.139s", "(50%)", e.w.Dryrun)
		if first.StartTime == "" || first.EndTime != "" {
			s.t.Errorf("times while running: %v", first)
		}
		for range 2 {
			last := s.status(uid, 0)
			s.simulated(last, completed, success, says("completed"), 100, "6.755s", "done", e.w.Dryrun)
			if last.StartTime != first.StartTime || last.EndTime == "" {
				s.t.Errorf("times at the end: %v", last)
			}
		}
	}
	s.listed(made)
	s.answered("delete", erase(s, made[0]), nil, &pb.DataMovementDeleteResponse{Status: deleteOK, Message: "Request " + made[0] + " deleted successfully"})
	s.answered("again", erase(s, made[0]), nil, &pb.DataMovementDeleteResponse{Status: deleteNotFound, Message: "Request " + made[0] + " not found"})
	s.answered("no uid", erase(s, "a"), nil, &pb.DataMovementDeleteResponse{Status: deleteInvalid, Message: "Request a is invalid"})
	s.listed(made[1:])
	s.answered("no uid", s.status("a", 0), nil, &pb.DataMovementStatusResponse{State: unknownState, Status: invalid, Message: "Request a is invalid"})
	s.answered("unknown", s.status(unknown, 0), nil, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound, Message: "Request " + unknown + " not found"})
}

func (s *env) simulated(r *pb.DataMovementStatusResponse, state pb.DataMovementStatusResponse_State, st pb.DataMovementStatusResponse_Status, message string, percent int32, elapsed, line string, dryrun bool) {
	s.t.Helper()
	if r.State != state || r.Status != st || r.Message != message {
		s.t.Errorf("%v, want %s %s %q", r, state, st, message)
	}
	c := r.CommandStatus
	if dryrun {
		s.answered("dry run", c, nil, &pb.DataMovementCommandStatus{Command: "true"})
		return
	}
	if c.GetCommand() != "mpirun -np 1 dcp --progress 1 src dest" || c.GetProgress() != percent || c.GetElapsedTime() != elapsed ||
		!strings.Contains(c.GetLastMessage(), line) || c.GetLastMessageTime() == "" {
		s.t.Errorf("%v, want %d percent, %s, %s", c, percent, elapsed, line)
	}
}

func (s *env) listed(want []string) {
	s.t.Helper()
	r, err := s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: &pb.DataMovementWorkflow{Name: "any"}})
	if got := slices.Sorted(slices.Values(r.GetUids())); err != nil || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		s.t.Errorf("list: %q, %v, want %q", got, err, want)
	}
}

func erase(s *env, uid string) *pb.DataMovementDeleteResponse {
	s.t.Helper()
	r, err := s.me.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Uid: uid})
	s.Must(err)
	return r
}

func simulatedCancels(s *env) {
	s.simulate()
	uid := s.createAs(s.me)
	cancel := func(uid string) *pb.DataMovementCancelResponse {
		s.t.Helper()
		r, err := s.me.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Uid: uid})
		s.Must(err)
		return r
	}
	for range 2 { // each cancel starts the sequence again
		s.answered("cancel", cancel(uid), nil, &pb.DataMovementCancelResponse{Status: cancelOK, Message: "Cancel Request " + uid + " initiated successfully"})
		empty := new(pb.DataMovementCommandStatus)
		s.answered("first", s.status(uid, 0), nil, &pb.DataMovementStatusResponse{State: cancelling, Status: unknownStatus, CommandStatus: empty})
		for range 2 {
			s.answered("then", s.status(uid, 0), nil, &pb.DataMovementStatusResponse{State: completed, Status: cancelled, CommandStatus: empty})
		}
	}
	s.answered("no uid", cancel("a"), nil, &pb.DataMovementCancelResponse{Status: cancelInvalid, Message: "Cancel Request a is invalid"})
	s.answered("unknown", cancel(unknown), nil, &pb.DataMovementCancelResponse{Status: cancelNotFound, Message: "Request " + unknown + " not found"})
}

// dmctl runs the built nnf-dmctl and checks its exit code. The tests in cmd/nnf-dmctl use a
// fake daemon.
func dmctl(t *testing.T, socket string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	program, err := lab.Binary("nnf-dmctl")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"NNF_DM_SOCKET=" + socket, "DW_WORKFLOW_NAME=job", "DW_WORKFLOW_NAMESPACE=default"}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// The simulated daemon has no version 2, so this also tests the program with earlier
// daemons.
func TestDmctlSimulated(t *testing.T) {
	s := newEnv(t, gfs2)
	s.simulate()
	run := func(code int, args ...string) (stdout, stderr string) {
		t.Helper()
		return dmctl(t, s.Socket, code, args...)
	}
	out, _ := run(0, "version")
	if !regexp.MustCompile(`(?m)^nnf-dm \S+ \(API 1\)$`).MatchString(out) {
		t.Errorf("version: %q", out)
	}
	out, errs := run(0, "copy", "--wait", "--store-stdout", "/mnt/a", "/lus/b/")
	if !strings.Contains(out, ": success, 6.755s, 2.000 GiB, 303.182 MiB/s\nRequest ") || !strings.Contains(errs, ": running 50%, 3.139s, 1.000 GiB, 326.217 MiB/s, 3 secs left: Copied") {
		t.Errorf("copy --wait: %q %q", out, errs)
	}
	out, _ = run(0, "copy", "/mnt/a", "/lus/b/")
	id := strings.TrimSpace(out)
	if out, _ = run(0, "status", id); !strings.HasPrefix(out, id+": running 50%") {
		t.Errorf("status: %q", out)
	}
	if out, _ = run(0, "cancel", "--wait", id); !strings.HasPrefix(out, id+": cancelled") {
		t.Errorf("cancel: %q", out)
	}
	run(4, "wait", id)
	out, _ = run(0, "list", "-o", "json")
	var list struct {
		Copies []struct{ ID, State, Result string }
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Copies) != 2 {
		t.Errorf("list: %v %s", err, out)
	}
	run(0, "delete", id)
	if _, errs = run(3, "status", id); !strings.Contains(errs, "could not find data movement") {
		t.Errorf("status of a deleted copy: %q", errs)
	}
	run(2, "status", "no-uuid")
	dmctl(t, filepath.Join(filepath.Dir(s.Socket), "missing"), 7, "list")
}
