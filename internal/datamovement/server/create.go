package server

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Create creates one data movement and returns its uid. With everything cached it
// sends one request to the API server, and three more in each jobWindow.
func (s *Service) Create(ctx context.Context, c datamovement.Caller, r datamovement.Request) (string, error) {
	if err := s.allowCreation(c); err != nil {
		return "", err
	}
	err := r.Check(s.settings.Load().Choices)
	uid := ""
	if err == nil {
		uid, err = s.create(ctx, c, &r)
	}
	return uid, s.fault(c, r.Workflow.Namespace+"/"+r.Workflow.Name, err)
}

// allowCreation counts a creation, and returns an error if the caller has created too many
// movements in too short a time.
func (s *Service) allowCreation(c datamovement.Caller) error {
	err := s.creates.Allow(c.UID)
	if err != nil {
		s.record(c, "", err.Error())
		return datamovement.LimitExceeded("limits.creates_per_second")
	}
	return nil
}

// create creates the movement for a checked request.
func (s *Service) create(ctx context.Context, c datamovement.Caller, r *datamovement.Request) (string, error) {
	since := time.Now()
	j, id, err := s.job(ctx, c, r.Workflow, since.Add(-s.window()))
	if err != nil {
		return "", err
	}
	p, err := s.locate(ctx, j, r, since)
	if err != nil && j.read.Before(since) {
		// Cached data is no reason to refuse a request.
		if j, id, err = s.job(ctx, c, r.Workflow, since); err != nil {
			return "", err
		}
		j = j.unlisted()
		p, err = s.locate(ctx, j, r, since)
	}
	if err != nil {
		return "", err
	}
	p.Identity = id
	step := stepOf(p.Mount)
	if p.Destination, err = s.look.destination(ctx, r); err != nil {
		return "", step.At(err)
	}
	if err := p.Check(); err != nil {
		return "", step.At(err)
	}
	if p.Profile, err = s.look.profile(ctx, r.Profile); err != nil {
		return "", datamovement.StepProfile.At(err)
	}
	dm, err := datamovement.Object(&p)
	if err != nil {
		return "", step.At(err)
	}
	place, err := s.reserve(ctx, c, dm)
	if err != nil {
		return "", err
	}
	made, err := s.createOrFind(ctx, dm, r.Key)
	if err != nil {
		place.rollBack(err)
		return "", datamovement.StepCreate.At(err)
	}
	place.commit(made)
	s.feed(made.Namespace).learn(made)
	s.absent.forget(made.Name)
	if batch := made.Labels[api.LabelBatch]; batch != "" {
		s.absent.forget(absentBatch(batch))
	}
	s.confirm(c, r, j, since, made)
	s.log.Info("data movement created", "uid", c.UID, "pid", c.PID, "object", made.Namespace+"/"+made.Name,
		"workflow", j.workflow.Namespace+"/"+j.workflow.Name, daemon.EventID(eventCreated))
	return made.Name, nil
}

// locate finds the mount that contains the request's source, and the path of the
// source on the rabbit. since is when the request started.
func (s *Service) locate(ctx context.Context, j *job, r *datamovement.Request, since time.Time) (p datamovement.Parts, err error) {
	p.Request, p.Node, p.Workflow = *r, s.o.Node, j.workflow
	err = j.chooseMount(ctx, s.look, s.o.Node, nil, since, func(mounts []datamovement.Mount) (_ datamovement.Mount, err error) {
		p.Mount, err = datamovement.FindMount(r, mounts, s.o.Node)
		return p.Mount, err
	})
	if err != nil {
		return p, datamovement.StepMount.At(err)
	}
	step := stepOf(p.Mount)
	if p.Rabbit, err = s.look.rabbit(ctx); err != nil && p.Mount.Type != dws.TypeLustre {
		return p, step.At(err)
	}
	if p.Source, err = s.look.source(ctx, r, p.Mount, j, p.Rabbit, since); err != nil {
		return p, step.At(err)
	}
	return p, nil
}

func stepOf(m datamovement.Mount) datamovement.Step {
	if m.Type == dws.TypeGFS2 {
		return datamovement.StepGFS2
	}
	return datamovement.StepLustre
}

// deletionTries is how often a creation waits for the removal of a movement with the
// same key that is being deleted. deletionWait is the first pause; each further pause
// is twice as long.
const (
	deletionTries = 5
	deletionWait  = 100 * time.Millisecond
)

// createOrFind creates the object, or returns the one that an earlier request with the
// same key has created. The key belongs to its movement until the movement is deleted.
func (s *Service) createOrFind(ctx context.Context, dm *nnf.DataMovement, key string) (*nnf.DataMovement, error) {
	wait := deletionWait
	for i := 0; ; i++ {
		made, err := s.api.create(ctx, dm)
		if err == nil {
			// The tombstone of an earlier movement with this name is obsolete.
			s.tombstones.drop(made.Name)
		}
		if key == "" || !kube.IsAlreadyExists(err) {
			return made, err
		}
		have := new(nnf.DataMovement)
		err = s.api.get(ctx, kindMovement, dm.Namespace, dm.Name, have)
		switch {
		case err == nil && have.DeletionTimestamp == nil:
			return have, datamovement.CheckRepeated(have, dm)
		case err != nil && !kube.IsNotFound(err):
			return nil, err
		case i == deletionTries:
			return nil, datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_UNAVAILABLE,
				"the data movement with this request_key is being deleted: try again")
		}
		kube.Pause(ctx, wait)
		wait *= 2
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// pair is one copy of a batch.
type pair struct{ source, destination string }

// result is the result for one pair: a uid, or an error.
type result struct {
	uid string
	err error
}

// CreateBatch creates a movement for each pair, with the other fields of r. The key
// may be empty. The returned error concerns the whole batch; errors of single pairs
// are in their results.
func (s *Service) CreateBatch(ctx context.Context, c datamovement.Caller, r datamovement.Request, pairs []pair, key string) (string, []result, error) {
	object := r.Workflow.Namespace + "/" + r.Workflow.Name
	now := s.settings.Load()
	switch {
	case len(pairs) == 0:
		return "", nil, s.fault(c, object, datamovement.Invalid("pairs", "pairs is empty: at least one pair is required"))
	case len(pairs) > now.Limits.BatchSize:
		s.record(c, object, "too many pairs in one batch")
		return "", nil, datamovement.LimitExceeded("limits.batch_size")
	}
	whole := r
	whole.Source, whole.Destination, whole.Key = "/source", "/destination", key
	if err := whole.Check(now.Choices); err != nil {
		return "", nil, s.fault(c, object, err)
	}
	j, id, err := s.job(ctx, c, r.Workflow, time.Now().Add(-s.window()))
	if err != nil {
		return "", nil, s.fault(c, object, err)
	}
	unique := key
	if unique == "" {
		unique = rand.Text()
	}
	r.Batch = datamovement.BatchHandle(s.o.Node, string(j.workflow.UID), id.UID, unique)
	handle, out := "", make([]result, 0, len(pairs))
	var away error // of the first pair for which the API server did not respond in time
	for i, p := range pairs {
		if err := ctx.Err(); err != nil {
			return "", nil, err // the client has disconnected
		}
		if away != nil {
			// The other pairs would wait as long, one after another.
			out = append(out, result{err: away})
			continue
		}
		// Create checks the workflow for each pair, because a large batch takes time.
		// Cached data of earlier pairs keeps this cheap.
		r.Source, r.Destination, r.Key = p.source, p.destination, datamovement.BatchKey(key, i)
		uid, err := s.Create(ctx, c, r)
		if err == nil {
			handle = r.Batch
		} else if datamovement.Explain(err).Reason == v2.ErrorReason_TIMEOUT {
			away = err
		}
		out = append(out, result{uid, err})
	}
	return handle, out, nil
}
