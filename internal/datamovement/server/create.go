package server

import (
	"context"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Create makes one data movement and returns its uid (contract nnf-dm.md 4.2).
// With everything remembered it takes one request to the API server, and three
// more in each jobWindow.
func (s *Service) Create(ctx context.Context, c Call, r datamovement.Request) (string, error) {
	object := r.Workflow.Namespace + "/" + r.Workflow.Name
	if err := s.mayCreate(c); err != nil {
		return "", err
	}
	if err := r.Check(s.settings.Load().Choices); err != nil {
		return "", s.judged(c, object, err)
	}
	uid, err := s.create(ctx, c, r)
	return uid, s.judged(c, object, err)
}

// mayCreate counts one creation.
func (s *Service) mayCreate(c Call) error {
	if err := s.creates.Allow(c.UID); err != nil {
		s.record(c, "", err.Error())
		return datamovement.LimitExceeded("limits.creates_per_second")
	}
	return nil
}

// locate finds the mount that contains source, and the path of source on the
// rabbit. since is when the request started.
func (s *Service) locate(ctx context.Context, j *job, source string, since time.Time) (m datamovement.Mount, p datamovement.Parts, err error) {
	err = j.settle(ctx, s.look, s.o.Node, nil, since, func(mounts []datamovement.Mount) (_ datamovement.Mount, err error) {
		m, err = datamovement.FindMount(source, mounts, s.o.Node)
		return m, err
	})
	if err != nil {
		return m, p, datamovement.StepMount.At(err)
	}
	step := stepOf(m)
	if p.Rabbit, err = s.look.rabbit(ctx); err != nil && m.Type != dws.TypeLustre {
		return m, p, step.At(err)
	}
	if p.Source, err = s.look.source(ctx, source, m, j, p.Rabbit, since); err != nil {
		return m, p, step.At(err)
	}
	return m, p, nil
}

func stepOf(m datamovement.Mount) datamovement.Step {
	if m.Type == dws.TypeGFS2 {
		return datamovement.StepGFS2
	}
	return datamovement.StepLustre
}

func (s *Service) create(ctx context.Context, c Call, r datamovement.Request) (string, error) {
	since := time.Now()
	j, id, err := s.job(ctx, c, r.Workflow, since.Add(-s.window()))
	if err != nil {
		return "", err
	}
	m, p, err := s.locate(ctx, j, r.Source, since)
	if err != nil && j.read.Before(since) {
		// Cached data is no reason to refuse a request.
		if j, id, err = s.job(ctx, c, r.Workflow, since); err != nil {
			return "", err
		}
		j = j.unlisted()
		m, p, err = s.locate(ctx, j, r.Source, since)
	}
	if err != nil {
		return "", err
	}
	step := stepOf(m)
	p.Request, p.Node, p.Workflow, p.Identity, p.Mount = r, s.o.Node, j.workflow, id, m
	if p.Destination, err = s.look.destination(ctx, r.Destination); err != nil {
		return "", step.At(err)
	}
	dm, err := datamovement.Object(&p)
	if err != nil {
		return "", step.At(err)
	}
	profile, err := s.look.profile(ctx, r.Profile)
	if err != nil {
		return "", datamovement.StepProfile.At(err)
	}
	dm.Spec.ProfileReference.Name = profile.Name
	if err := datamovement.CheckCommand(profile.Data.Command, dm); err != nil {
		return "", err
	}
	place, err := s.reserve(ctx, c, dm)
	if err != nil {
		return "", err
	}
	var made *nnf.DataMovement
	err = s.api.with(ctx, kindMovement, func(res kube.Resource) (err error) {
		dm.APIVersion = res.Group + "/" + res.Version
		made, err = s.make(ctx, res, dm, r.Key)
		return err
	})
	if err != nil {
		place.failed(err)
		return "", datamovement.StepCreate.At(err)
	}
	place.made(made)
	s.feed(made.Namespace).learn(made)
	s.absent.forget(made.Name)
	if batch := made.Labels[api.LabelBatch]; batch != "" {
		s.absent.forget(absentBatch(batch))
	}
	s.confirm(c, r.Workflow, j, since, made, r.Source)
	s.log.Info("data movement created", "uid", c.UID, "pid", c.PID, "object", made.Namespace+"/"+made.Name,
		"workflow", j.workflow.Namespace+"/"+j.workflow.Name, daemon.EventID(eventCreated))
	return made.Name, nil
}

// beingDeleted is how often a creation waits for the end of a movement that has
// the same key and is being deleted, and firstWait how long the first time. The
// pause doubles.
const (
	beingDeleted = 5
	firstWait    = 100 * time.Millisecond
)

// make creates the object, or finds the one that an earlier request with the
// same key has made. The key belongs to its movement until that is deleted.
func (s *Service) make(ctx context.Context, res kube.Resource, dm *nnf.DataMovement, key string) (*nnf.DataMovement, error) {
	wait := firstWait
	for i := 0; ; i++ {
		made := new(nnf.DataMovement)
		err := s.api.Create(ctx, res, dm.Namespace, dm, made)
		if err == nil {
			// A tombstone of an earlier movement with that name is obsolete.
			s.tombstones.drop(made.Name)
		}
		if key == "" || !kube.IsAlreadyExists(err) {
			return made, err
		}
		have := new(nnf.DataMovement)
		err = s.api.Get(ctx, res, dm.Namespace, dm.Name, have)
		switch {
		case err == nil && have.DeletionTimestamp == nil:
			if field := datamovement.Differs(have, dm); field != "" {
				return nil, datamovement.KeyReused(have, field)
			}
			if f := datamovement.KeySpent(have); f != nil {
				return nil, f
			}
			return have, nil
		case err != nil && !kube.IsNotFound(err):
			return nil, err
		case i == beingDeleted:
			return nil, datamovement.NewFault(datamovement.ErrUnavailable, datamovement.ReasonUnavailable,
				"the data movement of this request_key is being deleted: try again")
		}
		kube.Pause(ctx, wait)
		wait *= 2
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}
