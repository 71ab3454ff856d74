package offload

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var errorBehaviours = []behaviour{
	{"errors of the API server have codes and none of its text", "9.24 4.2/8", both, serverErrors},
	{"a slow API server", "9.24", one, slowServer},
	{"the permissions of the daemon", "access/rbac", both, rights},
}

func serverErrors(s *env) {
	s.config = uncached
	s.usual()
	uid := s.create()
	for _, e := range []struct {
		class string
		code  int
		want  codes.Code
	}{
		{lab.ClassGet, 403, codes.Internal},
		{lab.ClassGet, 500, codes.Unavailable},
		{lab.ClassGet, 401, codes.Unavailable},
		{lab.ClassList, 403, codes.Internal},
		{lab.ClassList, 500, codes.Unavailable},
		{lab.ClassCreate, 403, codes.Internal},
		{lab.ClassCreate, 500, codes.Unavailable},
		{lab.ClassCreate, 409, codes.Unavailable},
	} {
		s.Proxy.Set(lab.Rule{Class: e.class, Code: e.code})
		what := e.class + " answered " + codes.Code(e.code).String()
		_, err := s.me.Create(s.ctx(), s.usualRequest())
		s.code(what, err, e.want)
		if text := status.Convert(err).Message(); strings.Contains(text, "injected response") || strings.Contains(text, s.Proxy.Address) || text == "" {
			s.t.Errorf("%s: the caller gets %q", what, text)
		}
		batch, err := s.me2.CreateBatch(s.ctx(), &pb2.CreateBatchRequest{Workflow: s.named2(), Pairs: []*pb2.CopyPair{{Source: s.path + "/a", Destination: global + "/a"}}})
		if e.class == lab.ClassGet { // of the workflow
			s.code(what+", version 2", err, e.want, pb2.ErrorReason_INTERNAL, pb2.ErrorReason_UNAVAILABLE)
		} else if reason := batch.GetResults()[0].GetError().GetReason(); reason != pb2.ErrorReason_INTERNAL && reason != pb2.ErrorReason_UNAVAILABLE {
			s.t.Errorf("%s, version 2: the pair's result is %v, %v", what, batch, err)
		}
		s.Proxy.Clear()
	}
	s.Proxy.Set(lab.Rule{Class: lab.ClassGet, Code: 403})
	_, err := s.me.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: s.named(), Uid: uid})
	s.code("cancel", err, codes.Internal)
	_, err = s.me.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Workflow: s.named(), Uid: uid})
	s.code("delete", err, codes.Internal)
	s.Proxy.Clear()
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Code: 500})
	_, err = s.me.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()})
	s.code("list", err, codes.Unavailable)
	s.Proxy.Clear()
	s.create()
	wait.Within(s.t, patience, "the cause in the log", func() bool {
		n := 0
		for _, line := range s.d.Log() {
			if strings.Contains(line.Text, "a request could not be served") && strings.Contains(line.Text, "injected response") {
				n++
			}
		}
		return n > 5
	})
}

func slowServer(s *env) {
	s.usual()
	s.Proxy.Set(lab.Rule{Class: lab.ClassGet, Delay: patience})
	_, err := s.me.Create(deadline(s, time.Second), s.usualRequest())
	s.code("the caller's deadline", err, codes.DeadlineExceeded)
	s.Proxy.Clear()
	s.create()
}

// The permissions of an installation are sufficient for all tests. If one of them is
// missing, callers get an error that refers to the administrator.
func rights(s *env) {
	s.usual()
	for _, r := range s.Proxy.Requests() {
		if r.Code() == 403 {
			s.t.Errorf("forbidden: %s %s", r.Method, r.Path)
		}
	}
	uid := s.create()
	s.is(uid, pending, unknownStatus)
	s.SetMovement(uid, running(nil))
	s.cancels(uid, cancelOK)
	s.SetMovement(uid, finished("Cancelled", nil))
	s.deletes(uid, deleteOK)
	s.cancels(s.create(), cancelOK)
	s.lists(s.me)
	for _, r := range s.Proxy.Requests() {
		if r.Code() == 403 {
			s.t.Errorf("forbidden: %s %s", r.Method, r.Path)
		}
		if r.Class == lab.ClassUpdate {
			s.t.Errorf("a PUT of a whole object: %s %s", r.Method, r.Path)
		}
	}
}

var newerBehaviours = []behaviour{
	{"states of a newer rabbit", "9.30 4.4/4", both, newerStates},
}

// loosen allows any state in the schema, as newer versions may.
func loosen(t *testing.T, s *fixture.Fixture) {
	t.Helper()
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/nnfdatamovements.nnf.cray.hpe.com"
	crd, err := s.Cluster.Do(s.Context(patience), http.MethodGet, path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var patch []fields
	for i := range crd.At("spec", "versions").([]any) {
		for _, field := range []string{"state", "status"} {
			patch = append(patch, fields{"op": "remove", "path": fmt.Sprintf("/spec/versions/%d/schema/openAPIV3Schema/properties/status/properties/%s/enum", i, field)})
		}
	}
	if _, err := s.Cluster.PatchPath(s.Context(patience), path, "application/json-patch+json", patch); err != nil {
		t.Fatal(err)
	}
}

func newerStates(s *env) {
	s.usual()
	for _, e := range []struct {
		state, status string
		wantState     pb.DataMovementStatusResponse_State
		wantStatus    pb.DataMovementStatusResponse_Status
	}{
		{"Hibernating", "", unknownState, unknownStatus},
		{"Running", "Dubious", isRunning, unknownStatus},
		{"Finished", "Splendid", completed, unknownStatus},
		{"Hibernating", "Success", unknownState, success},
	} {
		uid := ""
		// After a change of the definitions, the server refuses requests for a moment.
		wait.Within(s.t, patience, "a Create that succeeds", func() bool {
			r, err := s.me.Create(s.ctx(), s.usualRequest())
			uid = r.GetUid()
			return err == nil
		})
		wait.Within(s.t, patience, "the definitions allow it", func() bool {
			status := fields{"state": e.state, "startTime": fixture.Stamp(startTime), "message": "says the rabbit"}
			if e.status != "" {
				status["status"] = e.status
			}
			return s.Cluster.PatchStatus(s.ctx(), "NnfDataMovement", s.where(), uid, status) == nil
		})
		r := s.is(uid, e.wantState, e.wantStatus)
		s.same("message", r.Message, fmt.Sprintf("says the rabbit; the rabbit reports state %q, status %q, unknown to this version of nnf-dm", e.state, e.status))
		m := s.status2(uid)
		s.same("message of version 2", m.Message, r.Message)
	}
}
