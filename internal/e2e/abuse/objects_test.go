package abuse

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
)

const (
	// objects with the longest paths exceed the maximum size of a response of the API server,
	// 32 MiB.
	objects = 4000
	// longest is a path of nearly the maximum length.
	longest = 4090
	// learns is how long alice's wait may continue after the end of the movement, on a busy
	// machine. Without a watch it would end after some seconds.
	learns = 15 * time.Second
)

// TestObjectFlood: bob keeps thousands of movements with long paths. Alice's waits end with
// her movements. Bob can create no more movements until he has deleted some.
func TestObjectFlood(t *testing.T) {
	s := newEnv(t, "[limits]\nmovements_per_user = 3000\nmovement_bytes_per_user = \"64MiB\"\n")
	s.keeps(bob, s.his.Name, s.his.UID, objects)
	var took []time.Duration
	const waits = 20
	for range waits {
		uid := s.alice.create(s.hers.Request("/out/", "/alice/"))
		s.Runs(uid)
		done := s.alice.start(order{Method: statusMethod, Body: statusBody(uid, -1), Limit: callLimit})
		if _, err := s.alice.v1().Status(t.Context(), &pb.DataMovementStatusRequest{Uid: uid}); err != nil {
			t.Fatal(err)
		}
		s.Ends(uid, "Success")
		start := time.Now()
		r := done()
		took = append(took, time.Since(start))
		if len(r.Status) > 0 && len(r.Body) == 0 {
			t.Fatalf("the wait failed: %q", r.Status)
		}
	}
	worst := time.Duration(0)
	for _, d := range took {
		worst = max(worst, d)
	}
	t.Logf("alice's waits end %v after the movements, at most", worst)
	if worst > learns {
		t.Errorf("alice's wait ended %v after the movement", worst)
	}
	if lost := s.lines("the watch on the data movements failed"); lost > 0 {
		t.Errorf("the watch was lost %d times", lost)
	}
	_, err := s.bob.v1().Create(t.Context(), s.his.Request("/out/", "/bob/"))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "limits.movements_per_user") || !strings.Contains(err.Error(), "delete those that have ended") {
		t.Errorf("bob has %d movements and creates another: %v", objects, err)
	}
	for i := range 1100 {
		r, err := s.bob.v1().Delete(t.Context(), &pb.DataMovementDeleteRequest{Uid: kept(i)})
		if err != nil || r.Status != pb.DataMovementDeleteResponse_SUCCESS {
			t.Fatalf("delete: %v %v", r, err)
		}
	}
	s.bob.create(s.his.Request("/out/", "/bob/"))
	s.Stop(s.daemon)
}

func (s *env) lines(text string) (n int) {
	for _, line := range s.daemon.Log() {
		if strings.Contains(line.Text, text) {
			n++
		}
	}
	return n
}

func kept(i int) string { return fmt.Sprintf("nnf-dm-node-kept-%d", i) }

// keeps creates ended movements of a user, as left by an earlier daemon without limits.
func (s *env) keeps(uid int, job, jobUID string, n int) {
	s.t.Helper()
	path := "/" + strings.Repeat(strings.Repeat("x", 200)+"/", longest/201)
	const workers = 8
	var all sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				_, err := s.Cluster.Create(s.t.Context(), fixture.DataMovement(s.Rabbit, kept(i), s.Node, job, jobUID, map[string]any{
					"userId": uid, "groupId": uid, "source": map[string]any{"path": path}, "destination": map[string]any{"path": path},
				}))
				if err == nil && i < 1100 {
					err = s.Cluster.PatchStatus(s.t.Context(), "NnfDataMovement", s.Rabbit, kept(i), map[string]any{"state": "Finished", "status": "Success"})
				}
				errs[w] = err
			}
		})
	}
	all.Wait()
	s.Must(errors.Join(errs...))
}
