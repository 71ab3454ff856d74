package server

import (
	"context"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// job is what all copies of one call have in common: the workflow and its
// mounts, each read once.
type job struct {
	workflow *dws.Workflow
	identity datamovement.Identity
	mounts   []datamovement.Mount            // of this compute
	found    map[string][]datamovement.Mount // of servers, by namespace; "" is all rabbits
}

// servers lists the entries of a rabbit, or of all, once for all copies of j.
func (j *job) servers(ctx context.Context, l *lookup, ns string, keep func(string) bool) ([]datamovement.Mount, error) {
	if m, ok := j.found[ns]; ok {
		return m, nil
	}
	m, err := l.mounts(ctx, j.workflow, ns, keep)
	if err == nil {
		j.found[ns] = m
	}
	return m, err
}

// Create makes one data movement and returns its uid (contract nnf-dm.md 4.2).
// With everything remembered it takes four requests to the API server.
func (s *Service) Create(ctx context.Context, c Call, r datamovement.Request) (string, error) {
	object := r.Workflow.Namespace + "/" + r.Workflow.Name
	if err := s.mayCreate(c); err != nil {
		return "", err
	}
	if err := r.Check(s.settings.Load().Choices); err != nil {
		return "", s.judged(c, object, err)
	}
	j, err := s.job(ctx, c, r.Workflow)
	if err != nil {
		return "", err
	}
	uid, err := s.create(ctx, c, j, r)
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

func (s *Service) job(ctx context.Context, c Call, w datamovement.WorkflowRef) (*job, error) {
	object := w.Namespace + "/" + w.Name
	wf, err := s.look.workflow(ctx, w)
	if err != nil {
		return nil, s.judged(c, object, datamovement.StepWorkflow.At(err))
	}
	id, v := s.settings.Load().Policy.CreateFor(c.Caller, wf)
	if err := s.verdict(c, object, v, datamovement.WorkflowNotFound(w)); err != nil {
		return nil, err
	}
	if err := datamovement.CheckWorkflow(wf); err != nil {
		return nil, err
	}
	mounts, err := s.look.mounts(ctx, wf, s.o.Node, nil)
	if err != nil {
		return nil, s.judged(c, object, datamovement.StepMount.At(err))
	}
	return &job{wf, id, mounts, make(map[string][]datamovement.Mount)}, nil
}

func (s *Service) create(ctx context.Context, c Call, j *job, r datamovement.Request) (string, error) {
	m, err := datamovement.FindMount(r.Source, j.mounts, s.o.Node)
	if err != nil {
		return "", datamovement.StepMount.At(err)
	}
	step := datamovement.StepLustre
	if m.Type == dws.TypeGFS2 {
		step = datamovement.StepGFS2
	}
	p := datamovement.Parts{Request: r, Node: s.o.Node, Workflow: j.workflow, Identity: j.identity, Mount: m}
	if p.Rabbit, err = s.look.rabbit(ctx); err != nil && m.Type != dws.TypeLustre {
		return "", step.At(err)
	}
	if p.Source, err = s.look.source(ctx, r.Source, m, j, p.Rabbit); err != nil {
		return "", step.At(err)
	}
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
	var made *nnf.DataMovement
	err = s.api.with(ctx, kindMovement, func(res kube.Resource) (err error) {
		dm.APIVersion = res.Group + "/" + res.Version
		made, err = s.make(ctx, res, dm, r.Key)
		return err
	})
	if err != nil {
		return "", datamovement.StepCreate.At(err)
	}
	s.feed(made.Namespace).learn(made)
	s.absent.forget(made.Name)
	if batch := made.Labels[api.LabelBatch]; batch != "" {
		s.absent.forget(absentBatch(batch))
	}
	s.log.Info("data movement created", "uid", c.UID, "pid", c.PID, "object", made.Namespace+"/"+made.Name,
		"workflow", j.workflow.Namespace+"/"+j.workflow.Name, daemon.EventID(eventCreated))
	return made.Name, nil
}

// make creates the object, or finds the one that an earlier request with the
// same key has made ("Do better" 31).
func (s *Service) make(ctx context.Context, res kube.Resource, dm *nnf.DataMovement, key string) (*nnf.DataMovement, error) {
	made := new(nnf.DataMovement)
	err := s.api.Create(ctx, res, dm.Namespace, dm, made)
	if key == "" || !kube.IsAlreadyExists(err) {
		return made, err
	}
	have := new(nnf.DataMovement)
	if err := s.api.Get(ctx, res, dm.Namespace, dm.Name, have); err != nil {
		return nil, err
	}
	if !datamovement.SameRequest(have, dm) {
		return nil, datamovement.KeyReused(key)
	}
	return have, nil
}
