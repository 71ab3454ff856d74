package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// warmCreates is how many creations are counted: together they stay below the
// daemon's own limit of requests to the API server, which would slow them down.
const warmCreates = 20

// requests counts, through a proxy, what calls cost the API server.
func (s *offload) requests() error {
	p, err := lab.StartProxy(s.cluster.URL, s.cluster.CA())
	if err != nil {
		return err
	}
	cert := filepath.Join(s.Dir, "proxy-nnf-dm.crt")
	if err := os.WriteFile(cert, p.CA(), 0o600); err != nil {
		return err
	}
	m, err := s.mover(p.Address, cert, os.DevNull)
	if err != nil {
		return err
	}
	conn, c, err := dial(jobUser, m.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.add("requests at start", "", 0, true, []float64{float64(p.Count())}, "until READY, counted by a proxy")
	uid, err := s.create(c)
	if err != nil {
		return err
	}
	s.add("requests of the first create", "", noTarget, true, []float64{float64(p.Count())}, "with all that is remembered for the next ones")
	// Creations share what is read of the workflow and the mounts, so single ones do
	// not say what they cost.
	p.ClearRequests()
	for range warmCreates {
		if uid, err = s.create(c); err != nil {
			return err
		}
	}
	each := []float64{float64(p.Count()) / warmCreates}
	s.add("requests per create, warm", "", 2, true, each, fmt.Sprintf("%d in a loop: the object; once a second workflow, mounts of compute and rabbit", warmCreates))
	if err := s.createRate(c); err != nil {
		return err
	}
	// The first poll begins the watch; when that has begun is known when it has
	// shown a change.
	if err := s.settled(c, uid); err != nil {
		return err
	}
	p.ClearRequests()
	for range s.polls {
		if _, err := s.poll(c, uid, 0); err != nil {
			return err
		}
	}
	perPoll := float64(p.Count()) / float64(s.polls)
	s.add("requests per poll", "", 0, true, []float64{perPoll}, fmt.Sprintf("%d polls of one transfer, one after another", s.polls))
	if err := s.stop(m.Daemon); err != nil {
		return err
	}
	return p.Close()
}

// createRate creates in a loop, after as many as the daemon may send at once.
func (s *offload) createRate(c pb.DataMoverClient) error {
	const n = 50
	var rates []float64
	for i := range 5 {
		began := time.Now()
		for range n {
			if _, err := s.create(c); err != nil {
				return err
			}
		}
		if i >= 2 { // the first 100 are the burst
			rates = append(rates, n/time.Since(began).Seconds())
		}
	}
	s.addLeast("creates per second, one user in a loop", "", 40, rates, "with the default kubernetes.qps, its burst used up")
	return nil
}

// settled returns when the daemon has seen a change through its watch.
func (s *offload) settled(c pb.DataMoverClient, uid string) error {
	for i := range 2 {
		if err := s.write(uid, map[string]any{"startTime": stamp(), "state": "Running", "commandStatus": map[string]any{"progress": 10 + i}}); err != nil {
			return err
		}
		for end := time.Now().Add(30 * time.Second); ; {
			r, err := s.poll(c, uid, 0)
			if err != nil {
				return err
			}
			if r.GetCommandStatus().GetProgress() == int32(10+i) {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("the daemon does not see the rabbit's report: %v", r)
			}
			if err := s.pause(5 * time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// times measures calls on a daemon that speaks to the API server itself, and
// leaves it alone afterwards as the used one.
func (s *offload) times() (*subject, error) {
	m, err := s.plain()
	if err != nil {
		return nil, err
	}
	conn, c, err := dial(jobUser, m.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	uid, err := s.create(c)
	if err != nil {
		return nil, err
	}
	var creates []float64
	for range warmCreates {
		began := time.Now()
		if uid, err = s.create(c); err != nil {
			return nil, err
		}
		creates = append(creates, milliseconds(time.Since(began)))
	}
	s.add("create, warm", "ms", noTarget, false, creates, "call to answer; the API server takes up to 100 ms for a list of which it makes sure")
	if err := s.settled(c, uid); err != nil {
		return nil, err
	}
	polls, err := s.timePolls(c, uid)
	if err != nil {
		return nil, err
	}
	how := "call to answer, one connection, one after another"
	s.add("status, p50", "ms", noTarget, false, polls, how)
	s.add("status, p99", "ms", 5, false, []float64{quantile(polls, 0.99)}, "the same")
	if err := s.wakeUps(c, uid); err != nil {
		return nil, err
	}
	how = fmt.Sprintf("after %d creates, %d polls, %d waits, nobody connected", warmCreates+1, s.polls, s.waits)
	return &subject{about: nnfDM, what: "used daemon", daemon: m.Daemon, how: how}, nil
}

// timePolls asks for the status again and again.
func (s *offload) timePolls(c pb.DataMoverClient, uid string) ([]float64, error) {
	var took []float64
	for range s.polls {
		began := time.Now()
		if _, err := s.poll(c, uid, 0); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	return took, nil
}
