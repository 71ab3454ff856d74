package mountstate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// HealthVersion is the version of the layout of Health.
const HealthVersion = 1

// Health is the output of "clientmountd health -o json".
type Health struct {
	Version  int       `json:"version"`
	Node     string    `json:"node"`
	Time     time.Time `json:"time"`            // when the state was read
	Verdict  Verdict   `json:"verdict"`         // VerdictProblem if a problem has another action than ActionNone
	Action   Action    `json:"action"`          // the most urgent action of all problems
	Line     string    `json:"line,omitempty"`  // the problems in one line; absent unless the verdict is VerdictProblem
	Error    string    `json:"error,omitempty"` // why the verdict is VerdictUnknown
	Problems []Problem `json:"problems"`        // the most urgent first
	Token    *Token    `json:"token,omitempty"` // as in Daemon

	MoverToken *Token `json:"nnf_dm_token,omitempty"` // as in Mounts
}

// Verdict is whether the storage on a node is fine.
type Verdict string

// The verdicts.
const (
	VerdictOK      Verdict = "ok"
	VerdictProblem Verdict = "problem"
	VerdictUnknown Verdict = "unknown" // the state of the node cannot be read
)

// Action is what the node needs.
type Action string

// The actions, the most urgent first.
const (
	ActionDrain Action = "drain" // no new job can use the storage of the node until an administrator acts
	ActionWait  Action = "wait"  // clientmountd retries, and completes the work when the cause is gone
	ActionNone  Action = "none"  // the node is fine
)

var actions = []Action{ActionDrain, ActionWait, ActionNone}

// Cause is the kind of a problem.
type Cause string

// The causes.
const (
	CauseStuck   Cause = "stuck"
	CauseDevice  Cause = "device"
	CauseOrphan  Cause = "orphan"
	CauseRecord  Cause = "record"
	CauseFailed  Cause = "failed"
	CauseBusy    Cause = "busy"
	CauseSlow    Cause = "slow"
	CauseDaemon  Cause = "daemon"
	CauseAPI     Cause = "api"
	CauseToken   Cause = "token"
	CauseRefused Cause = "refused"
)

// CauseInfo describes a cause.
type CauseInfo struct {
	Cause   Cause
	Action  Action        // of most problems with this cause
	Grace   time.Duration // default of its grace period
	Fixed   bool          // it has no grace period, because its age is not known or does not matter
	Meaning string
}

// Causes lists all causes, in the order of their urgency within an action.
var Causes = []CauseInfo{
	{Cause: CauseStuck, Action: ActionDrain, Grace: 5 * time.Minute, Meaning: "a command waits in the kernel and cannot be killed"},
	{Cause: CauseDevice, Action: ActionDrain, Grace: 2 * time.Minute, Meaning: "the device of a mount is missing or has failed"},
	{Cause: CauseOrphan, Action: ActionDrain, Grace: 5 * time.Minute, Meaning: "something is mounted whose ClientMount no longer exists"},
	{Cause: CauseRecord, Action: ActionDrain, Fixed: true, Meaning: "a record cannot be read, so something may be mounted"},
	{Cause: CauseFailed, Action: ActionWait, Grace: 5 * time.Minute, Meaning: "all attempts to mount or unmount fail"},
	{Cause: CauseBusy, Action: ActionWait, Grace: 10 * time.Minute, Meaning: "processes keep a mount in use that is to be unmounted"},
	{Cause: CauseSlow, Action: ActionWait, Grace: 10 * time.Minute, Meaning: "a mount or unmount takes long, without an error"},
	{Cause: CauseDaemon, Action: ActionWait, Grace: 2 * time.Minute, Meaning: "clientmountd does not run"},
	{Cause: CauseAPI, Action: ActionWait, Grace: 10 * time.Minute, Meaning: "the API server cannot be reached"},
	{Cause: CauseToken, Action: ActionWait, Fixed: true, Meaning: "the token of clientmountd or nnf-dm cannot be renewed or stored, or has expired"},
	{Cause: CauseRefused, Action: ActionNone, Fixed: true, Meaning: "the ClientMount or its storage profile is invalid"},
}

// Grace has, for each cause, how long a condition may last before it is a problem.
type Grace map[Cause]time.Duration

// DefaultGrace returns the default grace periods.
func DefaultGrace() Grace {
	g := Grace{}
	for _, c := range Causes {
		if !c.Fixed {
			g[c.Cause] = c.Grace
		}
	}
	return g
}

// Problem is one condition that has lasted longer than its grace period.
type Problem struct {
	Cause       Cause      `json:"cause"`
	Action      Action     `json:"action"`
	ClientMount string     `json:"clientmount,omitempty"` // absent: it concerns the node
	Workflow    string     `json:"workflow,omitempty"`
	Path        string     `json:"path,omitempty"`
	Since       *time.Time `json:"since,omitempty"` // absent: unknown
	Text        string     `json:"text"`            // one line: object, age and reason
}

// Bounds in bytes, without the mark of a shortened text.
const (
	problemLimit = 500
	// lineLimit is for the reason of a node in a workload manager.
	lineLimit = 190
	pathLimit = 64
)

// Evaluate returns the problems of a node. A condition whose age is not known counts as older than
// any grace period. This includes a condition that started in the future: the clock was set back, and
// the condition would otherwise be no problem until that time.
func Evaluate(doc *Mounts, grace Grace, now time.Time) *Health {
	h := &Health{Version: HealthVersion, Node: doc.Node, Time: now, Problems: []Problem{}, Token: doc.Daemon.Token, MoverToken: doc.MoverToken}
	add := func(p *Problem) {
		if p != nil && p.Since != nil && inFuture(*p.Since, now) {
			p.Since = nil
		}
		if p != nil && (p.Since == nil || now.Sub(*p.Since) >= grace[p.Cause]) {
			p.Text = text.Clip(text.Line(p.Text), problemLimit)
			h.Problems = append(h.Problems, *p)
		}
	}
	reported := map[int]bool{} // commands; one for several mounts of a ClientMount is one problem
	for _, i := range byUrgency(doc.Mounts) {
		m := &doc.Mounts[i]
		p, pid := m.problem(grace[CauseStuck], now)
		if pid != 0 && reported[pid] {
			continue
		}
		reported[pid] = true
		add(p)
	}
	for _, record := range doc.Unreadable {
		add(&Problem{Cause: CauseRecord, Action: ActionDrain, Text: record})
	}
	add(doc.Daemon.problem(now))
	add(doc.Daemon.Token.problem())
	if p := doc.MoverToken.problem(); p != nil {
		p.Action, p.Text = ActionWait, "nnf-dm: "+p.Text // mounts do not need it
		add(p)
	}
	order := func(c Cause) int { return slices.IndexFunc(Causes, func(i CauseInfo) bool { return i.Cause == c }) }
	slices.SortStableFunc(h.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(slices.Index(actions, a.Action), slices.Index(actions, b.Action)),
			cmp.Compare(order(a.Cause), order(b.Cause)), compareAge(a.Since, b.Since), cmp.Compare(a.Path, b.Path))
	})
	h.conclude()
	return h
}

// UnknownHealth returns the document of a node whose state cannot be read.
func UnknownHealth(err error, now time.Time) *Health {
	return &Health{
		Version: HealthVersion, Time: now, Verdict: VerdictUnknown, Action: ActionNone,
		Error: text.Clip(text.Line(err.Error()), problemLimit), Problems: []Problem{},
	}
}

// OnlyDrain removes the problems that need no drain.
func (h *Health) OnlyDrain() {
	if h.Verdict == VerdictUnknown {
		return
	}
	h.Problems = slices.DeleteFunc(h.Problems, func(p Problem) bool { return p.Action != ActionDrain })
	h.conclude()
}

// conclude sets what follows from the problems.
func (h *Health) conclude() {
	h.Verdict, h.Action, h.Line = VerdictOK, ActionNone, ""
	if len(h.Problems) == 0 || h.Problems[0].Action == ActionNone {
		return
	}
	h.Verdict, h.Action = VerdictProblem, h.Problems[0].Action
	more := ""
	if n := len(slices.DeleteFunc(slices.Clone(h.Problems[1:]), func(p Problem) bool { return p.Action == ActionNone })); n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	h.Line = text.Clip(h.Problems[0].Text, lineLimit-len(more)) + more
}

// compareAge sorts the oldest first, and an unknown age before all others.
func compareAge(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return a.Compare(*b)
}

// byUrgency returns the indices of mounts, the most urgent state first.
func byUrgency(mounts []Mount) []int {
	order := make([]int, len(mounts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return CompareUrgency(&mounts[a], &mounts[b]) })
	return order
}

// CompareUrgency sorts the mount with the most urgent state first; of two with the same state, the
// one that is in it for longer.
func CompareUrgency(a, b *Mount) int {
	return cmp.Or(cmp.Compare(slices.Index(States, a.State), slices.Index(States, b.State)), a.Since.Compare(b.Since))
}

// ParseHealth parses the output of "clientmountd health -o json".
func ParseHealth(data []byte) (*Health, error) {
	return text.ParseJSON[Health](data, HealthVersion)
}
