package server

import (
	"context"
	"math"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// Status tells how far a movement is (contract nnf-dm.md 4.4). With wait not 0 it
// returns when the movement has ended, after so many seconds, or as late as the
// daemon allows when wait is negative, and at once when the caller is gone.
func (s *Service) Status(ctx context.Context, c Call, w datamovement.WorkflowRef, uid string, wait int64) (datamovement.Answer, error) {
	if err := s.checkNames(c, w, uid); err != nil {
		return datamovement.Answer{}, err
	}
	if g, ok := s.buried(c, w, uid); ok {
		return datamovement.AnswerCancelled(g.at), nil
	}
	f, err := s.place(ctx, c, uid)
	if err != nil {
		return datamovement.Answer{}, err
	}
	defer f.follow()()
	dm, err := s.current(ctx, c, w, f, uid)
	if g, ok := s.buriedMeanwhile(c, w, uid, err); ok {
		return datamovement.AnswerCancelled(g.at), nil
	}
	if err != nil {
		return datamovement.Answer{}, err
	}
	if err := s.allowed(c, dm, w); err != nil {
		return datamovement.Answer{}, err
	}
	if wait != 0 && !datamovement.Completed(dm) {
		release, err := s.waiter(c, uid)
		if err != nil {
			return datamovement.Answer{}, err
		}
		defer release()
		var g tombstone
		if dm, g, err = s.await(ctx, c, w, f, uid, s.longest(wait)); err != nil {
			return datamovement.Answer{}, err
		}
		if dm == nil {
			return datamovement.AnswerCancelled(g.at), nil
		}
	}
	return datamovement.AnswerOf(dm), nil
}

// longest bounds a wait in seconds; a negative one is without end.
func (s *Service) longest(wait int64) time.Duration {
	most := s.settings.Load().MaxWait
	if wait < 0 || wait > math.MaxInt64/int64(time.Second) {
		return most
	}
	return min(time.Duration(wait)*time.Second, most)
}

// waiter takes a place among the user's waiting requests.
func (s *Service) waiter(c Call, object string) (release func(), err error) {
	release, err = s.waiters.Acquire(c.UID)
	if err != nil {
		s.record(c, object, err.Error())
		return nil, datamovement.LimitExceeded("limits.waiters_per_user")
	}
	return release, nil
}

// await returns the movement when it has ended or after the time limit; or its tombstone
// when it was cancelled before its start.
func (s *Service) await(ctx context.Context, c Call, w datamovement.WorkflowRef, f *feed, uid string, most time.Duration) (*nnf.DataMovement, tombstone, error) {
	changed := make(chan struct{}, 1)
	defer f.notify(changed, c.UID, uid)()
	timer := time.NewTimer(most)
	defer timer.Stop()
	for over := false; ; {
		if g, ok := s.tombstones.find(uid); ok {
			return nil, g, nil
		}
		dm, err := s.current(ctx, c, w, f, uid)
		if g, ok := s.tombstones.findMeanwhile(uid, err); ok {
			return nil, g, nil
		}
		if err != nil || over || datamovement.Completed(dm) {
			return dm, tombstone{}, err
		}
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-s.stopping:
			over = true
		case <-ctx.Done():
			return nil, tombstone{}, ctx.Err()
		}
	}
}
