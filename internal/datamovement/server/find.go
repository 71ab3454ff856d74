package server

import (
	"context"
	"errors"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// checkNames refuses what names no movement, before anybody is asked.
func (s *Service) checkNames(c Call, w datamovement.WorkflowRef, uid string) error {
	err := w.CheckOptional()
	if err == nil {
		err = datamovement.CheckUID(uid)
	}
	return s.judged(c, uid, err)
}

// place returns the feed of the namespace in which a movement is.
func (s *Service) place(ctx context.Context, c Call, uid string) (*feed, error) {
	rabbit := ""
	if strings.HasPrefix(uid, nnf.PrefixNodeMovement) {
		var err error
		if rabbit, err = s.look.known(ctx); err != nil {
			return nil, s.judged(c, uid, err)
		}
		if rabbit == "" { // an external compute has none of these
			return nil, datamovement.MovementNotFound(uid)
		}
	}
	return s.feed(datamovement.Namespace(uid, rabbit)), nil
}

// isAbsent tells that c was told a moment ago that there is no such movement or
// batch. What is not the caller's has its record each time.
func (s *Service) isAbsent(c Call, w datamovement.WorkflowRef, name string) bool {
	n, ok := s.absent.find(c, w, name)
	if ok && n.reason != "" {
		s.record(c, n.object, n.reason)
	}
	return ok
}

// read asks the API server, and tells the feed.
func (s *Service) read(ctx context.Context, c Call, w datamovement.WorkflowRef, f *feed, uid string) (*nnf.DataMovement, error) {
	if s.isAbsent(c, w, uid) {
		return nil, datamovement.MovementNotFound(uid)
	}
	dm := new(nnf.DataMovement)
	err := s.api.get(ctx, kindMovement, f.namespace, uid, dm)
	if unanswered(err) && ctx.Err() == nil {
		// Jobs give up at an error, and a server that is restarted breaks every
		// connection once.
		kube.Pause(ctx, readAgain)
		dm = new(nnf.DataMovement)
		err = s.api.get(ctx, kindMovement, f.namespace, uid, dm)
	}
	switch {
	case kube.IsNotFound(err):
		f.forget(uid)
		s.absent.add(c, w, uid, "", "")
		return nil, datamovement.MovementNotFound(uid)
	case err != nil:
		return nil, s.judged(c, uid, err)
	}
	f.learn(dm)
	if v := s.access(c).Movement(dm, w); v.Outcome == datamovement.Hidden {
		s.absent.add(c, w, uid, datamovement.Describe(dm), v.Outcome.String()+": "+v.Reason)
	}
	return dm, nil
}

// readAgain is the pause before a read without an answer is repeated.
const readAgain = 50 * time.Millisecond

// unanswered tells that the server was not reached, or broke off.
func unanswered(err error) bool {
	var answer apierrors.APIStatus
	f := datamovement.Explain(err)
	return f != nil && f.Reason == datamovement.ReasonUnavailable && !errors.As(err, &answer) && !errors.As(err, new(*datamovement.Fault))
}

// current returns what is known, or asks. What is not the caller's is asked for
// like what does not exist: else the time of an answer told them apart.
func (s *Service) current(ctx context.Context, c Call, w datamovement.WorkflowRef, f *feed, uid string) (*nnf.DataMovement, error) {
	if dm := f.get(uid); dm != nil && s.access(c).Movement(dm, w).Allowed() {
		return dm, nil
	}
	last := f.last(uid)
	if last == nil || !s.access(c).Movement(last, w).Allowed() {
		return s.read(ctx, c, w, f, uid)
	}
	// The watch is lost. While the API server does not answer either, what was shown
	// last is a better answer than an error: jobs give up at one.
	short, cancel := context.WithTimeout(ctx, lastWord)
	defer cancel()
	dm, err := s.read(short, c, w, f, uid)
	if e := datamovement.Explain(err); e != nil && ctx.Err() == nil && errors.Is(e.Kind, datamovement.ErrUnavailable) {
		f.keep(last)
		return last, nil
	}
	return dm, err
}

// lastWord is how long a read may take of which an earlier answer is known.
const lastWord = time.Second

// allowed hides what is not the caller's.
func (s *Service) allowed(c Call, dm *nnf.DataMovement, w datamovement.WorkflowRef) error {
	return s.verdict(c, datamovement.Describe(dm), s.access(c).Movement(dm, w), datamovement.MovementNotFound(dm.Name))
}

// buried finds a movement that was cancelled before its start.
func (s *Service) buried(c Call, w datamovement.WorkflowRef, uid string) (tombstone, bool) {
	g, ok := s.tombstones.find(uid)
	if !ok || s.allowed(c, g.dm, w) != nil {
		return tombstone{}, false
	}
	return g, true
}

// buriedMeanwhile is buried for an error of a request that began before somebody
// else's cancel. What is not the caller's has its record from the look before.
func (s *Service) buriedMeanwhile(c Call, w datamovement.WorkflowRef, uid string, err error) (tombstone, bool) {
	g, ok := s.tombstones.findMeanwhile(uid, err)
	if !ok || !s.access(c).Movement(g.dm, w).Allowed() {
		return tombstone{}, false
	}
	return g, true
}
