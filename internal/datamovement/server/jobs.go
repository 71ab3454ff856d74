package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const (
	// jobWindow is how long what was read of a workflow and its mounts is good for
	// further creations.
	//
	// Why that is safe. Every creation uses a workflow, and the two ClientMounts
	// that its paths depend on, that were each read by a GET, which the API server
	// answers from its newest state, not longer ago than this. A list that the
	// server has at hand only says which ClientMounts to read. A refusal is never
	// based on what is remembered, nor on a list that may be out of date.
	//
	// The workflow may have left PreRun, or a mount may be unmounted, since it was
	// read: between a check and the creation that follows there is always some time.
	// So a creation based on what is remembered is confirmed: the workflow and the
	// mounts are read again after it, and a movement that would not be allowed any
	// more is cancelled. Further creations read them anyway, so in a loop of
	// creations this costs nothing.
	jobWindow = time.Second
	// relistAfter is how long a list says which ClientMounts there are. Those of a
	// workflow do not change while it stays as it is: when it changes, when a source
	// is in none of them, or when one is not mounted, they are listed again.
	relistAfter = time.Minute
	// confirmRetry is the pause after a confirmation that the API server did not
	// answer, and confirmTries how often that is tried.
	confirmRetry = 2 * time.Second
	confirmTries = 60
	// manyJobs is how many are remembered before those out of date are dropped.
	manyJobs = 64
)

// job is what was read for the copies of one workflow.
type job struct {
	workflow *dws.Workflow
	read     time.Time // when the reads started
	turn     chan struct{}
	sets     map[string]*mountSet // by namespace; "" is all rabbits
}

// mountSet is the workflow's ClientMounts of a namespace.
type mountSet struct {
	items  []*dws.ClientMount
	listed time.Time
	newest bool                   // the list was a consistent read, by this job
	read   map[mountName]struct{} // were read by this job since the list
}

type mountName struct{ namespace, name string }

func (s *mountSet) mounts() (out []datamovement.Mount) {
	for _, cm := range s.items {
		out = append(out, datamovement.Mounts(cm)...)
	}
	return out
}

// replace puts cm, or with nil nothing, in the place of the one of that name.
func (s *mountSet) replace(name mountName, cm *dws.ClientMount) {
	var items []*dws.ClientMount
	for _, old := range s.items {
		switch {
		case old.Namespace != name.namespace || old.Name != name.name:
			items = append(items, old)
		case cm != nil:
			items = append(items, cm)
		}
	}
	s.items = items
}

// settle calls choose with the mounts of a namespace until what it chooses was
// read from the newest state. since is when the creation started: only what was
// read after that is a reason to refuse it.
func (j *job) settle(ctx context.Context, l *lookup, ns string, keep func(string) bool, since time.Time, choose func([]datamovement.Mount) (datamovement.Mount, error)) error {
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-j.turn }()
	list := func(fromCache bool) (*mountSet, error) {
		begin := time.Now()
		items, err := l.clientMounts(ctx, j.workflow, ns, keep, fromCache)
		if err != nil {
			return nil, err
		}
		set := &mountSet{items: items, listed: begin, newest: !fromCache, read: make(map[mountName]struct{})}
		j.sets[ns] = set
		return set, nil
	}
	set := j.sets[ns]
	if set == nil {
		var err error
		if set, err = list(true); err != nil {
			return err
		}
	}
	for {
		m, err := choose(set.mounts())
		if err != nil {
			if set.newest && !set.listed.Before(since) {
				return err
			}
			if set, err = list(false); err != nil {
				return err
			}
			continue
		}
		name := mountName{m.Namespace, m.Name}
		if _, ok := set.read[name]; ok || set.newest {
			return nil
		}
		cm := new(dws.ClientMount)
		err = l.api.get(ctx, kindClientMount, m.Namespace, m.Name, cm)
		switch {
		case kube.IsNotFound(err):
			set.replace(name, nil)
		case err != nil:
			return err
		case !j.owns(cm): // the name was given to one of another workflow
			set.replace(name, nil)
		default:
			set.replace(name, cm)
		}
		set.read[name] = struct{}{}
	}
}

// owns tells whether a ClientMount has the labels of the workflow, by which it was
// listed.
func (j *job) owns(cm *dws.ClientMount) bool {
	return cm.Labels[api.LabelWorkflowName] == j.workflow.Name && cm.Labels[api.LabelWorkflowNamespace] == j.workflow.Namespace
}

// renewed is the job for a workflow that was read again. What was listed for the
// old one is still a list of what to read, if nothing has changed.
func (j *job) renewed(wf *dws.Workflow, begin time.Time) *job {
	out := &job{workflow: wf, read: begin, turn: make(chan struct{}, 1), sets: make(map[string]*mountSet)}
	if j == nil || j.workflow.UID != wf.UID || j.workflow.ResourceVersion != wf.ResourceVersion {
		return out
	}
	select {
	case j.turn <- struct{}{}:
	default: // it is being read
		return out
	}
	defer func() { <-j.turn }()
	for ns, set := range j.sets {
		if begin.Sub(set.listed) < relistAfter {
			out.sets[ns] = &mountSet{items: set.items, listed: set.listed, read: make(map[mountName]struct{})}
		}
	}
	return out
}

// unlisted is j without its lists.
func (j *job) unlisted() *job {
	return &job{workflow: j.workflow, read: j.read, turn: make(chan struct{}, 1), sets: make(map[string]*mountSet)}
}

// jobs remembers what was read for each user and workflow. A user who may
// not use a workflow has no entry: the requests to the API server are the same for
// a workflow of another user and for one that does not exist.
type jobs struct {
	mu    sync.Mutex
	slots map[jobKey]*jobSlot
	work  sync.WaitGroup // confirmations
}

type jobKey struct {
	uid uint32
	ref datamovement.WorkflowRef
}

type jobSlot struct {
	turn chan struct{} // held while reading the workflow

	// Under the lock of jobs:
	job         *job
	unconfirmed []unconfirmed
	confirming  bool
}

// unconfirmed is a movement that was created from what was remembered.
type unconfirmed struct {
	dm      *nnf.DataMovement
	request *datamovement.Request
	at      time.Time
}

func (j *jobs) slot(k jobKey) *jobSlot {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.slots == nil {
		j.slots = make(map[jobKey]*jobSlot)
	}
	sl := j.slots[k]
	if sl == nil {
		if len(j.slots) >= manyJobs {
			for k, old := range j.slots {
				if !old.confirming && (old.job == nil || time.Since(old.job.read) > relistAfter) {
					delete(j.slots, k)
				}
			}
		}
		sl = &jobSlot{turn: make(chan struct{}, 1)}
		j.slots[k] = sl
	}
	return sl
}

func (j *jobs) get(sl *jobSlot) *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	return sl.job
}

func (j *jobs) set(sl *jobSlot, job *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	sl.job = job
}

// window is how old what is remembered may be.
func (s *Service) window() time.Duration { return min(jobWindow, s.settings.Load().LookupExpiry) }

// job returns what was read for a workflow not before the given time, and the
// identity that copies are made with. Whether the caller may have them is decided for each call.
func (s *Service) job(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, notBefore time.Time) (*job, datamovement.Identity, error) {
	object := w.Namespace + "/" + w.Name
	sl := s.jobs.slot(jobKey{c.UID, w})
	select {
	case sl.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, datamovement.Identity{}, ctx.Err()
	}
	defer func() { <-sl.turn }()
	j := s.jobs.get(sl)
	if j == nil || j.read.Before(notBefore) {
		begin := time.Now()
		wf, err := s.look.workflow(ctx, w)
		if err != nil {
			if datamovement.Explain(err).Kind == datamovement.ErrNotFound {
				s.jobs.set(sl, nil)
			}
			return nil, datamovement.Identity{}, datamovement.StepWorkflow.At(err)
		}
		j = j.renewed(wf, begin)
	}
	id, v := s.settings.Load().Policy.CreateFor(c, j.workflow)
	err := s.verdict(c, object, v, datamovement.WorkflowNotFound(w))
	if err == nil {
		err = datamovement.CheckWorkflow(j.workflow)
	}
	if err != nil {
		s.jobs.set(sl, nil)
		return nil, datamovement.Identity{}, err
	}
	s.jobs.set(sl, j)
	return j, id, nil
}

// confirm starts the confirmation of a movement that was created from what was
// read before the creation started, or a long time before it ended.
func (s *Service) confirm(c datamovement.Caller, r *datamovement.Request, j *job, since time.Time, dm *nnf.DataMovement) {
	now := time.Now()
	if !j.read.Before(since) && now.Sub(j.read) <= jobWindow {
		return
	}
	w := r.Workflow
	sl := s.jobs.slot(jobKey{c.UID, w})
	s.jobs.mu.Lock()
	defer s.jobs.mu.Unlock()
	sl.unconfirmed = append(sl.unconfirmed, unconfirmed{dm, r, now})
	if sl.confirming || s.ending.Err() != nil {
		return
	}
	sl.confirming = true
	s.o.Idle.Enter()
	s.jobs.work.Go(func() {
		defer s.o.Idle.Leave()
		s.confirmAll(context.WithValue(s.ending, callerKey{}, c), c, w, sl)
	})
}

// confirmAll runs until nothing is left to be confirmed.
func (s *Service) confirmAll(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, sl *jobSlot) {
	tries := 0
	for wait := jobWindow; ; wait = jobWindow {
		kube.Pause(ctx, wait)
		s.jobs.mu.Lock()
		todo := sl.unconfirmed
		if len(todo) == 0 || ctx.Err() != nil || tries >= confirmTries {
			sl.unconfirmed, sl.confirming = nil, false
			s.jobs.mu.Unlock()
			if len(todo) > 0 && ctx.Err() == nil {
				s.log.Warn("could not confirm that new data movements are still allowed: the API server does not answer", "uid", c.UID,
					"workflow", w.Namespace+"/"+w.Name)
			}
			return
		}
		sl.unconfirmed = nil
		s.jobs.mu.Unlock()
		var open []unconfirmed
		for i, m := range todo {
			if s.confirmOne(ctx, c, w, m) != nil {
				open = todo[i:]
				break
			}
		}
		if len(open) == 0 {
			tries = 0
			continue
		}
		tries++
		s.jobs.mu.Lock()
		sl.unconfirmed = append(open, sl.unconfirmed...)
		s.jobs.mu.Unlock()
		kube.Pause(ctx, confirmRetry)
	}
}

// confirmOne cancels a movement that would not be created any more. The error is
// that of an API server that does not answer.
func (s *Service) confirmOne(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, m unconfirmed) error {
	j, _, err := s.job(ctx, c, w, m.at)
	if err == nil {
		var p datamovement.Parts
		if p, err = s.locate(ctx, j, m.request, m.at); err == nil && p.Source != m.dm.Spec.Source.Path {
			err = datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "the source is mounted elsewhere on the rabbit now")
		}
	}
	f := datamovement.Explain(err)
	switch {
	case f == nil:
		return nil
	case errors.Is(f.Kind, datamovement.ErrUnavailable) || f.Reason == v2.ErrorReason_INTERNAL:
		return f
	}
	s.record(c, datamovement.Describe(m.dm), "cancelled, for it would not be created any more: "+f.Error())
	err = s.cancel(ctx, c, s.feed(m.dm.Namespace), m.dm)
	if f := datamovement.Explain(err); f != nil && f.Kind != datamovement.ErrNotFound {
		return f
	}
	return nil
}
