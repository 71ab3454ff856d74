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
	// jobWindow is how long further creations may use the cached workflow and mounts.
	//
	// This is safe: every creation uses a workflow, and the two ClientMounts that its
	// paths depend on, each read by a GET within this window. The API server answers a
	// GET from its latest state. A list from the server's cache only determines which
	// ClientMounts to read. A refusal is never based on cached data, nor on a list that
	// can be outdated.
	//
	// Since the read, the workflow may have left PreRun, or a mount may have been
	// unmounted: some time always passes between a check and the creation. A creation
	// based on cached data is therefore confirmed: the workflow and the mounts are read
	// again after it, and a movement that is no longer allowed is cancelled. Further
	// creations read them anyway, so in a loop of creations this costs nothing.
	jobWindow = time.Second
	// relistAfter is how long a list of ClientMounts is used. The ClientMounts of a
	// workflow do not change while the workflow does not change. They are listed again
	// if it changes, if no ClientMount contains a source, or if one is not mounted.
	relistAfter = time.Minute
	// confirmRetry is the pause after a confirmation without a response of the API
	// server, and confirmTries the number of attempts.
	confirmRetry = 2 * time.Second
	confirmTries = 60
	// manyJobs is how many jobs are cached before outdated ones are dropped.
	manyJobs = 64
)

// job is the cached data for the copies of one workflow.
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
	newest bool                   // this job read the list consistently, not from a cache
	read   map[mountName]struct{} // read by this job since the list
}

type mountName struct{ namespace, name string }

func (s *mountSet) mounts() (out []datamovement.Mount) {
	for _, cm := range s.items {
		out = append(out, datamovement.Mounts(cm)...)
	}
	return out
}

// replace replaces the ClientMount with that name by cm, or removes it if cm is nil.
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

// chooseMount calls choose with the mounts of a namespace until the chosen mount was
// read from the latest state. since is when the creation started: only data that was
// read after that can be a reason to refuse it.
func (j *job) chooseMount(ctx context.Context, l *lookup, ns string, keep func(string) bool, since time.Time, choose func([]datamovement.Mount) (datamovement.Mount, error)) error {
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-j.turn }()
	set := j.sets[ns]
	if set == nil {
		var err error
		if set, err = j.list(ctx, l, ns, keep, true); err != nil {
			return err
		}
	}
	for {
		m, err := choose(set.mounts())
		if err != nil {
			if set.newest && !set.listed.Before(since) {
				return err
			}
			if set, err = j.list(ctx, l, ns, keep, false); err != nil {
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
		case !j.owns(cm): // now a ClientMount of another workflow
			set.replace(name, nil)
		default:
			set.replace(name, cm)
		}
		set.read[name] = struct{}{}
	}
}

// list lists the ClientMounts of a namespace. The caller holds turn.
func (j *job) list(ctx context.Context, l *lookup, ns string, keep func(string) bool, fromCache bool) (*mountSet, error) {
	start := time.Now()
	items, err := l.clientMounts(ctx, j.workflow, ns, keep, fromCache)
	if err != nil {
		return nil, err
	}
	set := &mountSet{items: items, listed: start, newest: !fromCache, read: make(map[mountName]struct{})}
	j.sets[ns] = set
	return set, nil
}

// latest returns the mounts of a namespace, read from the latest state.
func (j *job) latest(ctx context.Context, l *lookup, ns string) ([]datamovement.Mount, error) {
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-j.turn }()
	set, err := j.list(ctx, l, ns, nil, false)
	if err != nil {
		return nil, err
	}
	return set.mounts(), nil
}

// owns reports whether a ClientMount has the labels of the workflow, which select it in
// a list.
func (j *job) owns(cm *dws.ClientMount) bool {
	return cm.Labels[api.LabelWorkflowName] == j.workflow.Name && cm.Labels[api.LabelWorkflowNamespace] == j.workflow.Namespace
}

// renewed returns the job for a workflow that was read again. If the workflow has not
// changed, the new job keeps the lists, which determine what to read.
func (j *job) renewed(wf *dws.Workflow, start time.Time) *job {
	out := &job{workflow: wf, read: start, turn: make(chan struct{}, 1), sets: make(map[string]*mountSet)}
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
		if start.Sub(set.listed) < relistAfter {
			out.sets[ns] = &mountSet{items: set.items, listed: set.listed, read: make(map[mountName]struct{})}
		}
	}
	return out
}

// unlisted returns j without its lists.
func (j *job) unlisted() *job {
	return &job{workflow: j.workflow, read: j.read, turn: make(chan struct{}, 1), sets: make(map[string]*mountSet)}
}

// jobs caches the job of each user and workflow. A user who may not use a workflow has
// no entry: the requests to the API server are the same for a workflow of another user
// and for one that does not exist.
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

	// Guarded by jobs.mu:
	job         *job
	unconfirmed []unconfirmed
	confirming  bool
}

// unconfirmed is a movement that was created from cached data.
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

// window returns the maximum age of cached data.
func (s *Service) window() time.Duration { return min(jobWindow, s.settings.Load().LookupExpiry) }

// job returns the data of a workflow, read not before notBefore, and the identity of
// its copies. It authorises the caller in each call. If the caller may use the workflow,
// but its state does not allow copies, job returns the data with the error.
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
		start := time.Now()
		wf, err := s.look.workflow(ctx, w)
		if err != nil {
			if datamovement.Explain(err).Kind == datamovement.ErrNotFound {
				s.jobs.set(sl, nil)
			}
			return nil, datamovement.Identity{}, datamovement.StepWorkflow.At(err)
		}
		j = j.renewed(wf, start)
	}
	id, v := s.settings.Load().Policy.CreateFor(c, j.workflow)
	if err := s.verdict(c, object, v, datamovement.WorkflowNotFound(w)); err != nil {
		s.jobs.set(sl, nil)
		return nil, datamovement.Identity{}, err
	}
	if err := datamovement.CheckWorkflow(j.workflow); err != nil {
		s.jobs.set(sl, nil)
		return j, id, err
	}
	s.jobs.set(sl, j)
	return j, id, nil
}

// confirm starts the confirmation of a movement that was created from data read before
// the creation started, or more than jobWindow before it ended.
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

// confirmAll runs until all movements are confirmed.
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
				s.log.Warn("could not confirm that new data movements are still allowed: the API server does not respond", "uid", c.UID,
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

// confirmOne cancels a movement that is no longer allowed. It returns an error if the
// API server does not respond.
func (s *Service) confirmOne(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, m unconfirmed) error {
	j, _, err := s.job(ctx, c, w, m.at)
	if err == nil {
		var p datamovement.Parts
		if p, err = s.locate(ctx, j, m.request, m.at); err == nil && p.Source != m.dm.Spec.Source.Path {
			err = datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "the path of the source on the rabbit has changed")
		}
	}
	f := datamovement.Explain(err)
	switch {
	case f == nil:
		return nil
	case errors.Is(f.Kind, datamovement.ErrUnavailable) || f.Reason == v2.ErrorReason_INTERNAL:
		return f
	}
	s.record(c, datamovement.Describe(m.dm), "cancelled because it is no longer allowed: "+f.Error())
	err = s.cancel(ctx, c, s.feed(m.dm.Namespace), m.dm)
	if f := datamovement.Explain(err); f != nil && f.Kind != datamovement.ErrNotFound {
		return f
	}
	return nil
}
