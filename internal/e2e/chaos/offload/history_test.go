package offload

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/chaos"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const (
	// bound is the longest time, in all but 1 % of the calls of a user that only a hostile user disturbs,
	// plus slower times that of a direct request to the API server at that time: a call
	// needs up to six of them, and machines are busy. On a machine with a load of 20, where a direct
	// request took 0.2 s, it was 0.6 s. With the requests of all users in one queue it was 4.9 s: the
	// hostile user has 200 in progress, and the daemon sends 50 a second.
	bound  = 1500 * time.Millisecond
	slower = 6
	// least is the number of calls from which bound applies: with fewer, a single call decides.
	least = 100
	// lateness is how much longer than its limit a wait may take, on a busy machine.
	lateness = 2 * time.Second
	// staleness is how old a state may be that is returned while nothing fails.
	staleness = 5 * time.Second
	// jobWindow is how long the daemon may use what it has read about a workflow.
	jobWindow = time.Second
)

// call is a request to the daemon, and its response.
type call struct {
	user   string
	op     string // create, status, list, cancel, delete; peek for those of another user's movement
	job    string // name of the workflow
	name   string // uid of the movement in the protocol, the name of its object
	number int    // of a creation
	wait   int64  // of a status, in seconds; negative: no limit
	limit  time.Duration
	bad    bool // a creation that must be refused
	cut    bool // the client disconnects
	quiet  bool // only shown if it is wrong

	start, end time.Time
	code       codes.Code
	state      string // of a status
	result     string
	message    string
	names      []string // of a list
}

func (c *call) String() string {
	what := strings.Join(strings.Fields(fmt.Sprint(c.op, " ", c.name)), " ")
	if c.op == "create" {
		what = fmt.Sprintf("create %d", c.number)
	}
	if c.op == "status" && c.wait != 0 {
		what += fmt.Sprintf(" wait %d", c.wait)
	}
	if c.end.IsZero() {
		return c.user + ": " + what
	}
	answer := strings.Join(strings.Fields(fmt.Sprint(c.state, " ", c.result, " ", strings.Join(c.names, " "))), " ")
	if c.code != codes.OK {
		answer = c.code.String()
	}
	return fmt.Sprintf("%s: %s: %s %.150q after %.3f s", c.user, what, answer, c.message, c.end.Sub(c.start).Seconds())
}

// Ranks of states: a movement never gets a lower one.
var ranks = map[string]int{"PENDING": 0, "STARTING": 1, "RUNNING": 2, "CANCELLING": 3, "COMPLETED": completed}

const completed = 4

// movement is an object as the API server has it, from birth to its end. Times are those of the
// arrival here, which is later than the change.
type movement struct {
	name, uid string
	user      string
	job       string
	number    int
	spec      string // without spec.cancel
	version   int64
	born      time.Time
	rank      int
	ran       time.Time // when it was first seen in a state after PENDING
	result    string    // final, as in the protocol; empty: not final
	message   string
	final     time.Time
	cancelled bool
	deleting  bool
	gone      bool
}

// request is a creation, which may be repeated with its key.
type request struct {
	user, job                  string
	names                      map[string]bool // of successful responses
	refused, unknown, attempts int
}

// answered are the responses of an owner about a movement.
type answered struct {
	ranks           map[int]time.Time // end of the first response with that state
	result, message string            // of the first final response
	final           bool
}

// job is a workflow.
type job struct {
	user          string
	ending, ended time.Time // when the end was requested, and when the workflow was no longer in PreRun
}

// history records the calls and the objects at the API server, and checks both against each other. The
// objects are read from the API server, not from the daemon.
type history struct {
	*chaos.Log
	// read reads a movement from the API server: nil if it does not exist.
	read      func(ctx context.Context, name string) (lab.Object, error)
	uids      map[string]int // of users
	faultless bool           // nothing fails

	mu        sync.Mutex
	objects   map[string]*movement // by UID
	names     map[string]*movement // the last one with a name
	requests  map[int]*request
	cancels   map[string]time.Time // start of the owner's first cancel, by name
	deletes   map[string]time.Time // start of the owner's first delete, by name
	erased    map[string]bool      // successfully deleted, by name
	jobs      map[string]*job
	answers   map[string]*answered
	times     []time.Duration // of the calls that must be fast
	direct    []time.Duration // of requests to the API server without the daemon
	asking    time.Time       // when the current one of these was sent
	overloads []pause         // when one of these took longer than overload
	pauses    []pause         // when the daemon was restarted
	unchecked int             // responses that could not be compared, because the API server did not respond
}

// pause is a time in which calls may take longer; a zero end means until now.
type pause struct{ from, to time.Time }

func newHistory(uids map[string]int, faultless bool, read func(context.Context, string) (lab.Object, error)) *history {
	return &history{
		read: read, uids: uids, faultless: faultless, Log: chaos.NewLog(), objects: map[string]*movement{}, names: map[string]*movement{}, requests: map[int]*request{},
		cancels: map[string]time.Time{}, deletes: map[string]time.Time{}, erased: map[string]bool{}, jobs: map[string]*job{}, answers: map[string]*answered{},
	}
}

// disturb marks the time until the returned function is called: calls may take longer, and waits may end
// early.
func (h *history) disturb() (over func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pauses = append(h.pauses, pause{from: time.Now()})
	i := len(h.pauses) - 1
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.pauses[i].to = time.Now()
	}
}

// disturbed reports whether a call overlaps a pause. The caller holds mu.
func (h *history) disturbed(c *call) bool { return h.within(h.pauses, c) }

// within reports whether a call overlaps one of the times.
func (h *history) within(list []pause, c *call) bool {
	return slices.ContainsFunc(list, func(p pause) bool { return p.from.Before(c.end) && (p.to.IsZero() || p.to.After(c.start)) })
}

// jobStarts announces a workflow.
func (h *history) jobStarts(name, user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs[name] = &job{user: user}
}

// jobEnds announces that a workflow is about to end; jobEnded that the API server has stored that.
func (h *history) jobEnds(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs[name].ending = time.Now()
}

func (h *history) jobEnded(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs[name].ended = time.Now()
}

// ending reports whether the job was about to end before a time. The caller holds mu.
func (h *history) ending(name string, at time.Time) bool {
	j := h.jobs[name]
	return j != nil && !j.ending.IsZero() && j.ending.Before(at)
}

// asked reports whether the owner has requested the cancellation or deletion of a movement before a
// time, or its job was about to end. The caller holds mu.
func (h *history) asked(name, job string, at time.Time) bool {
	for _, list := range []map[string]time.Time{h.cancels, h.deletes} {
		if asked, ok := list[name]; ok && asked.Before(at) {
			return true
		}
	}
	return h.ending(job, at)
}

// Global paths of users: the destinations of their requests.
func destination(user, kind string, number int) string {
	return fmt.Sprintf("/%s/%s/%d/", user, kind, number)
}

// requestOf returns the user and the number in a destination; 0 if it has none.
func requestOf(path string) (user string, number int) {
	parts := strings.Split(strings.TrimPrefix(path, fixture.Global+"/"), "/")
	if len(parts) > 2 {
		number, _ = strconv.Atoi(parts[2])
	}
	return parts[0], number
}

// observe records a state of an object: an event, or what was read.
func (h *history) observe(kind string, o lab.Object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Check()
	now := time.Now()
	m := h.objects[o.String("metadata", "uid")]
	if m == nil {
		m = h.bear(o, now)
	}
	version, _ := strconv.ParseInt(o.String("metadata", "resourceVersion"), 10, 64)
	if version <= m.version || m.gone {
		return
	}
	m.version = version
	if spec := specOf(o); spec != m.spec {
		h.Wrong("the spec of %s was changed from %s to %s", m.name, m.spec, spec)
		m.spec = spec
	}
	state, result := o.String("status", "state"), strings.ToUpper(o.String("status", "status"))
	rank := map[string]int{"Starting": 1, "Running": 2, "Finished": completed}[state]
	if rank > 0 && m.ran.IsZero() {
		m.ran = now
	}
	line := fmt.Sprintf("%s %s of %s: %s %s", kind, m.name, m.user, state, result)
	cancelled, deleting := o.At("spec", "cancel") == true, kind == "DELETED" || o.At("metadata", "deletionTimestamp") != nil
	mine := m.user != hostile // she is not recorded
	if cancelled && !m.cancelled {
		line += " cancelled"
		if asked, ok := h.cancels[m.name]; mine && !(ok && asked.Before(now)) && !h.ending(m.job, now) {
			h.Wrong("%s is cancelled, and %s has not requested that", m.name, m.user)
		}
	}
	if deleting && !m.deleting {
		line += " deleted"
		if mine && !h.asked(m.name, m.job, now) {
			h.Wrong("%s is deleted, and %s has not requested that", m.name, m.user)
		}
		if mine && rank != completed && m.result == "" && !cancelled && !h.ending(m.job, now) {
			h.Wrong("%s is deleted in state %q", m.name, state)
		}
	}
	m.cancelled, m.deleting, m.gone = m.cancelled || cancelled, m.deleting || deleting, kind == "DELETED"
	if rank > m.rank || m.gone || cancelled && !strings.HasSuffix(h.Last(), line) {
		h.Note(line)
	}
	m.rank = max(m.rank, rank)
	if rank == completed {
		if m.result == "" {
			m.final = now
		}
		m.result, m.message = result, o.String("status", "message")
	}
}

// specOf returns the spec without cancel.
func specOf(o lab.Object) string {
	spec, _ := o.At("spec").(map[string]any)
	spec = maps.Clone(spec)
	delete(spec, "cancel")
	text, _ := json.Marshal(spec) // it was JSON before
	return string(text)
}

// bear records a new object. The caller holds mu.
func (h *history) bear(o lab.Object, now time.Time) *movement {
	m := &movement{name: o.Name(), uid: o.String("metadata", "uid"), born: now, spec: specOf(o), job: o.String("metadata", "labels", api.LabelWorkflowName)}
	m.user, m.number = requestOf(o.String("spec", "destination", "path"))
	h.objects[m.uid], h.names[m.name] = m, m
	h.Note(fmt.Sprintf("born %s: %d of %s", m.name, m.number, m.user))
	if owner := h.jobs[m.job]; owner == nil || owner.user != m.user {
		h.Wrong("%s of %s belongs to the job %q", m.name, m.user, m.job)
	}
	uid := float64(h.uids[m.user])
	if o.At("spec", "userId") != uid || o.At("spec", "groupId") != uid {
		h.Wrong("%s of %s copies as %v:%v", m.name, m.user, o.At("spec", "userId"), o.At("spec", "groupId"))
	}
	if m.user == hostile {
		return m
	}
	r := h.requests[m.number]
	if r == nil || r.user != m.user || r.job != m.job {
		h.Wrong("no user has requested %s: %d of %s, %s", m.name, m.number, m.user, m.job)
		return m
	}
	h.count(m.number)
	return m
}

// count checks the number of objects of a request: one, and one more for each that was removed before the
// request was repeated. The caller holds mu.
func (h *history) count(number int) {
	var names []string
	most := 1
	for _, m := range h.objects {
		if m.number == number && m.user == h.requests[number].user {
			names = append(names, m.name)
			if h.asked(m.name, m.job, time.Now()) {
				most++
			}
		}
	}
	if most = min(most, h.requests[number].attempts); len(names) > most {
		h.Wrong("there are %d movements for request %d: %v", len(names), number, names)
	}
}

// sync reads a movement from the API server and returns its current state: nil if it has never existed.
// ok is false if the API server does not respond.
func (h *history) sync(name string) (m *movement, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), chaos.Patience)
	defer cancel()
	var o lab.Object
	err := error(nil)
	for ctx.Err() == nil { // the server may be down
		if o, err = h.read(ctx, name); err == nil {
			break
		}
		kube.Pause(ctx, 100*time.Millisecond)
	}
	if err == nil && o != nil {
		h.observe("READ", o)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.unchecked++
		return nil, false
	}
	m = h.names[name]
	if o == nil && m != nil && !m.gone {
		m.gone = true
		h.Note("gone " + name)
		if m.user != hostile && !h.asked(name, m.job, time.Now()) {
			h.Wrong("%s no longer exists, and %s has not requested that", name, m.user)
		}
	}
	return m, true
}

// starts records the start of a call, immediately before it.
func (h *history) starts(c *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.start = time.Now()
	switch c.op {
	case "create":
		r := h.requests[c.number]
		if r == nil {
			r = &request{user: c.user, job: c.job, names: map[string]bool{}}
			h.requests[c.number] = r
		}
		r.attempts++
	case "cancel", "delete":
		list := h.cancels
		if c.op == "delete" {
			list = h.deletes
		}
		if _, ok := list[c.name]; !ok {
			list[c.name] = c.start
		}
	}
}

// clear reports whether a code means that the request was refused and has no effect.
func clear(code codes.Code) bool {
	return slices.Contains([]codes.Code{codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.FailedPrecondition, codes.ResourceExhausted, codes.Unimplemented}, code)
}

// failures are the codes of calls that fail because something fails.
var failures = []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.ResourceExhausted}

// ends records the response to a call, and checks it.
func (h *history) ends(c *call) {
	c.end = time.Now()
	h.mu.Lock()
	h.Check()
	if !c.quiet {
		h.Note(c.String())
	}
	took := c.end.Sub(c.start)
	if took > c.limit+lateness {
		h.Wrong("%v: its deadline was %v", c, c.limit)
	}
	if c.op == "create" {
		r := h.requests[c.number]
		switch {
		case c.code == codes.OK && c.result != "SUCCESS" || clear(c.code):
			r.refused++
		case c.code != codes.OK:
			r.unknown++
		default:
			r.names[c.name] = true
		}
	}
	if c.code != codes.OK {
		expected := c.cut || c.wait < 0 && c.code == codes.DeadlineExceeded
		works := h.faultless && !h.overloaded(c)
		if !expected && (works || !slices.Contains(failures, c.code)) {
			h.Wrong("%v: the call fails", c)
		}
		h.mu.Unlock()
		return
	}
	if h.faultless && !h.disturbed(c) && c.wait == 0 && !(c.op == "delete" && !h.cancels[c.name].IsZero()) { // which waits for the end
		h.times = append(h.times, took)
	}
	h.mu.Unlock()
	switch c.op {
	case "create":
		h.created(c)
	case "status":
		h.status(c)
	case "list":
		h.list(c)
	case "cancel":
		h.cancel(c)
	case "delete":
		h.deleted(c)
	case "peek":
		if c.result != "NOT_FOUND" {
			h.Wrong("%v: it belongs to another user", c)
		}
	}
}

// created checks a creation.
func (h *history) created(c *call) {
	h.mu.Lock()
	if j := h.jobs[c.job]; c.result == "SUCCESS" && !j.ended.IsZero() && c.start.After(j.ended.Add(jobWindow+lateness)) {
		h.Wrong("%v: its job had ended %.1f s before", c, c.start.Sub(j.ended).Seconds())
	}
	m, r := h.names[c.name], h.requests[c.number]
	if c.result != "SUCCESS" {
		if !c.bad && !h.ending(c.job, c.end) {
			h.Wrong("%v: it is valid", c)
		}
		h.mu.Unlock()
		return
	}
	if c.bad {
		h.Wrong("%v: it is not valid", c)
	}
	for other := range r.names {
		if other != c.name && !h.asked(other, c.job, c.end) {
			h.Wrong("%v: an earlier call has returned %s", c, other)
		}
	}
	h.mu.Unlock()
	if m == nil {
		var ok bool
		if m, ok = h.sync(c.name); !ok {
			return
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case m == nil && !h.asked(c.name, c.job, time.Now()):
		h.Wrong("%v: there is no such object", c)
	case m != nil && (m.number != c.number || m.user != c.user || m.job != c.job):
		h.Wrong("%v: %s is %d of %s, %s", c, m.name, m.number, m.user, m.job)
	}
}

// missing checks a response that a movement of the caller does not exist. It reports whether the
// response is that.
func (h *history) missing(c *call) bool {
	if c.result != "NOT_FOUND" {
		return false
	}
	if m, ok := h.sync(c.name); ok && m != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !m.gone && !m.deleting && m.born.Before(c.start) {
			h.Wrong("%v: it exists", c)
		}
	}
	return true
}

// status checks a status.
func (h *history) status(c *call) {
	h.waited(c)
	if h.missing(c) {
		return
	}
	rank, known := ranks[c.state]
	if !known {
		h.Wrong("%v: an unknown state", c)
		return
	}
	h.mu.Lock()
	m := h.names[c.name]
	behind := m == nil || m.rank < rank && rank != ranks["CANCELLING"]
	h.mu.Unlock()
	if behind { // the event may not have arrived
		var ok bool
		if m, ok = h.sync(c.name); !ok || m == nil {
			return // it was created and deleted while the server was down
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, cancels := h.cancels[c.name]
	cancels = cancels || h.ending(m.job, c.end)
	early := rank == completed && c.result == "CANCELLED" && cancels && m.cancelled && (m.ran.IsZero() || h.late(m) || h.ending(m.job, c.end))
	switch {
	case rank == ranks["CANCELLING"] && !cancels:
		h.Wrong("%v: %s has not cancelled it", c, c.user)
	case rank == completed && !early && m.result == "" && !m.gone:
		h.Wrong("%v: it has not ended", c)
	case rank == completed && m.result != "" && c.result != m.result && !early:
		h.Wrong("%v: its result is %s", c, m.result)
	case rank == completed && m.result != "" && c.message != m.message && !early:
		h.Wrong("%v: its message is %.150q", c, m.message)
	case rank != completed && rank != ranks["CANCELLING"] && rank > m.rank && !m.gone:
		h.Wrong("%v: it was not in that state", c)
	case h.faultless && rank != completed && m.result != "" && m.final.Before(c.start.Add(-staleness)) && !h.disturbed(c):
		h.Wrong("%v: it ended %.1f s before", c, c.start.Sub(m.final).Seconds())
	}
	h.forward(c, rank)
}

// late reports whether the rabbit has started a movement after its owner had started to cancel it: the
// daemon cannot see that. The caller holds mu.
func (h *history) late(m *movement) bool {
	asked, ok := h.cancels[m.name]
	return ok && !m.ran.IsZero() && m.ran.After(asked)
}

// forward checks that no state is older than one of an earlier response, and that a final one never
// changes. The caller holds mu.
func (h *history) forward(c *call, rank int) {
	if h.erased[c.name] { // the object exists until the rabbit lets it go
		return
	}
	a := h.answers[c.name]
	if a == nil {
		a = &answered{ranks: map[int]time.Time{}}
		h.answers[c.name] = a
	}
	for other, end := range a.ranks {
		if other > rank && end.Before(c.start) {
			h.Wrong("%v: the state was already %s", c, slices.Collect(func(yield func(string) bool) {
				for name, r := range ranks {
					if r == other {
						yield(name)
					}
				}
			})[0])
			break
		}
	}
	if end, ok := a.ranks[rank]; !ok || c.end.Before(end) {
		a.ranks[rank] = c.end
	}
	if rank != completed {
		return
	}
	if m := h.names[c.name]; a.final && !(m != nil && h.late(m)) && (a.result != c.result || a.message != c.message && c.result != "CANCELLED") {
		h.Wrong("%v: the result was already %s %.150q", c, a.result, a.message)
	}
	a.final, a.result, a.message = true, c.result, c.message
}

// waited checks the time of a wait.
func (h *history) waited(c *call) {
	if c.wait == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	took, most := c.end.Sub(c.start), time.Duration(c.wait)*time.Second
	over := c.state == "COMPLETED" || c.result == "NOT_FOUND"
	if !over && (c.wait < 0 || took < most-100*time.Millisecond) && !h.disturbed(c) {
		h.Wrong("%v: the wait ended without a result before its limit", c)
	}
	if !h.faultless || h.disturbed(c) {
		return
	}
	if c.wait > 0 && took > most+lateness {
		h.Wrong("%v: the wait ended late", c)
	}
	if m := h.names[c.name]; m != nil && m.result != "" {
		if late := c.end.Sub(m.final); late > lateness && took > lateness && over {
			h.Wrong("%v: it ended %.1f s before", c, late.Seconds())
		}
	}
}

// list checks a list: only the caller's movements, and all of them.
func (h *history) list(c *call) {
	for _, name := range c.names {
		h.mu.Lock()
		m := h.names[name]
		h.mu.Unlock()
		if m == nil {
			if m, _ = h.sync(name); m == nil {
				continue
			}
		}
		if m.user != c.user || m.job != c.job {
			h.Wrong("%v: %s belongs to %s, %s", c, name, m.user, m.job)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.names {
		if m.user == c.user && m.job == c.job && m.born.Before(c.start) && !m.gone && !h.asked(m.name, m.job, c.end) && !slices.Contains(c.names, m.name) {
			h.Wrong("%v: %s is missing", c, m.name)
		}
	}
}

// cancel checks that a successful cancel has requested the cancellation.
func (h *history) cancel(c *call) {
	if h.missing(c) {
		return
	}
	if c.result != "SUCCESS" {
		if h.faultless || c.result != "FAILED" {
			h.Wrong("%v: a cancel never fails", c)
		}
		return
	}
	done := func(m *movement) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return m != nil && (m.cancelled || m.deleting || m.gone || m.result != "")
	}
	h.mu.Lock()
	m := h.names[c.name]
	h.mu.Unlock()
	if !done(m) {
		if m, ok := h.sync(c.name); ok && m != nil && !done(m) {
			h.Wrong("%v: it is neither cancelled nor ended", c)
		}
	}
}

// deleted checks that a movement is deleted after a success, and active after ACTIVE.
func (h *history) deleted(c *call) {
	if h.missing(c) {
		return
	}
	h.mu.Lock()
	m := h.names[c.name]
	gone := m != nil && (m.gone || m.deleting)
	if c.result == "SUCCESS" {
		h.erased[c.name] = true
	}
	h.mu.Unlock()
	switch c.result {
	case "SUCCESS":
		if gone {
			return
		}
		if m, ok := h.sync(c.name); ok && m != nil {
			h.mu.Lock()
			defer h.mu.Unlock()
			if !m.gone && !m.deleting {
				h.Wrong("%v: it is not deleted", c)
			}
		}
	case "ACTIVE":
		h.mu.Lock()
		defer h.mu.Unlock()
		if m != nil && m.result != "" && m.final.Before(c.start) {
			h.Wrong("%v: it had ended", c)
		}
	default:
		h.Wrong("%v: an unexpected response", c)
	}
}

// finish checks what must hold at the end: each request has the movements that its responses promise,
// and calls were fast.
func (h *history) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	objects := map[int]int{}
	for _, m := range h.objects {
		if m.user != hostile {
			objects[m.number]++
		}
	}
	for number, r := range h.requests {
		n := objects[number]
		switch {
		case len(r.names) > 0 && n == 0 && !h.removed(r):
			h.Wrong("request %d was accepted as %v, but no movement was ever there", number, slices.Collect(maps.Keys(r.names)))
		case len(r.names) == 0 && r.unknown == 0 && n > 0:
			h.Wrong("request %d was refused, but there are %d movements", number, n)
		}
		h.count(number)
	}
	for name, a := range h.answers {
		if m := h.names[name]; m != nil && a.final && m.result != "" && a.result != m.result && !h.late(m) {
			h.Wrong("the result of %s was reported as %s, but it is %s", name, a.result, m.result)
		}
	}
	limit := bound + slower*p99(h.direct)
	if took := p99(h.times); took > limit && len(h.times) >= least {
		h.Wrong("1 %% of %d calls took longer than %v, the limit is %v", len(h.times), took.Round(time.Millisecond), limit.Round(time.Millisecond))
	}
	h.Note(fmt.Sprintf("%d calls: p99 %v; %d direct requests: p99 %v", len(h.times), p99(h.times), len(h.direct), p99(h.direct)))
}

// removed reports whether a movement of a request was removed, so that it may never have been seen. The
// caller holds mu.
func (h *history) removed(r *request) bool {
	for name := range r.names {
		if h.asked(name, r.job, time.Now()) {
			return true
		}
	}
	return false
}

// p99 returns the time that 99 % of the calls did not exceed. It sorts them.
func p99(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

// overload is the time of a direct request to the API server above which the machine is too busy: a call
// needs several, and the daemon limits them and the end of running calls at a restart to 5 s.
const overload = 500 * time.Millisecond

// overloaded reports whether the machine was too busy during a call that ends now. The caller holds mu.
func (h *history) overloaded(c *call) bool {
	return h.within(h.overloads, c) || !h.asking.IsZero() && time.Since(h.asking) > overload
}

// asks records that a direct request to the API server is sent.
func (h *history) asks(since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asking = since
}

// compare records the time of a request to the API server.
func (h *history) compare(since time.Time, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.direct, h.asking = append(h.direct, took), time.Time{}
	if took > overload {
		h.overloads = append(h.overloads, pause{since, since.Add(took)})
	}
}

// own returns the names of the movements of a user's job that exist and that the user has not removed.
func (h *history) own(user, job string) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.names {
		if m.user == user && m.job == job && !m.gone && !m.deleting {
			names = append(names, m.name)
		}
	}
	slices.Sort(names)
	return names
}
