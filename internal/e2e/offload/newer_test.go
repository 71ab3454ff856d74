package offload

import (
	"fmt"
	"net/http"
	"testing"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var newerPromises = []promise{
	{"states of a newer rabbit", "9.30 4.4/4", both, newerStates},
}

// loosen lets rabbits write any state, as newer definitions may.
func loosen(t *testing.T, s *world.World) {
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
		// A server whose definitions have changed refuses requests for a moment.
		wait.Within(s.t, patience, "a Create that succeeds", func() bool {
			r, err := s.me.Create(s.ctx(), s.wish())
			uid = r.GetUid()
			return err == nil
		})
		wait.Within(s.t, patience, "the definitions allow it", func() bool {
			status := fields{"state": e.state, "startTime": world.Stamp(began), "message": "says the rabbit"}
			if e.status != "" {
				status["status"] = e.status
			}
			path := lab.Path("NnfDataMovement", s.where(), uid) + "/status"
			_, err := s.Cluster.PatchPath(s.ctx(), path, "application/merge-patch+json", fields{"status": status})
			return err == nil
		})
		r := s.is(uid, e.wantState, e.wantStatus)
		s.same("message", r.Message, fmt.Sprintf("says the rabbit; the rabbit says state %q, status %q, which this version does not know", e.state, e.status))
		m := s.status2(uid)
		s.same("message of version 2", m.Message, r.Message)
	}
}
