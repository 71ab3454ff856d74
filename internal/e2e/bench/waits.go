package main

import (
	"fmt"
	"maps"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// begins is the time for a wait to have begun before its end is written. One
// that has not yet is measured all the same, from the writing.
const begins = 15 * time.Millisecond

// wakeUps measures how long after the rabbit's report a waiting client has the
// answer. The transfers are copies of one that the daemon has made.
func (s *offload) wakeUps(c pb.DataMoverClient, model string) error {
	o, err := s.cluster.Get(s.ctx, "NnfDataMovement", lab.CopyRabbit, model)
	if err != nil {
		return err
	}
	var woken, written []float64
	for i := range s.waits {
		uid := fmt.Sprintf("nnf-dm-node-wait-%d", i)
		labels, _ := o.At("metadata", "labels").(map[string]any)
		twin := lab.Object{
			"apiVersion": o["apiVersion"], "kind": o["kind"], "spec": o["spec"],
			"metadata": map[string]any{"name": uid, "namespace": lab.CopyRabbit, "labels": maps.Clone(labels)},
		}
		if _, err := s.cluster.Create(s.ctx, twin); err != nil {
			return err
		}
		wake, write, err := s.wait(c, uid)
		if err != nil {
			return err
		}
		woken, written = append(woken, wake), append(written, write)
	}
	how := "from sending the rabbit's last report until the waiting client has the answer"
	s.add("wake-up of a wait, p50", "ms", noTarget, false, woken, how)
	s.add("wake-up of a wait, p99", "ms", 20, false, []float64{quantile(woken, 0.99)}, "the same; in it, until the API server has the report:")
	s.add("  the report itself, p50", "ms", noTarget, false, written, "request to answer; not the daemon's")
	return nil
}

func (s *offload) wait(c pb.DataMoverClient, uid string) (woken, written float64, err error) {
	type end struct {
		at  time.Time
		err error
	}
	ended := make(chan end, 1)
	go func() {
		r, err := s.poll(c, uid, 60)
		if err == nil && r.State != pb.DataMovementStatusResponse_COMPLETED {
			err = fmt.Errorf("the wait for %s ended with %v", uid, r)
		}
		ended <- end{time.Now(), err}
	}()
	if err := s.pause(begins); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	err = s.write(uid, map[string]any{"startTime": stamp(), "endTime": stamp(), "state": "Finished", "status": "Success"})
	after := time.Now()
	if err != nil {
		return 0, 0, err
	}
	e := <-ended
	return milliseconds(e.at.Sub(began)), milliseconds(after.Sub(began)), e.err
}
