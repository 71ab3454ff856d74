package clientmount

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// metricsPause is the minimum time between two writes of the metrics. The first change after
// it is written immediately; changes during it are written together at its end.
const metricsPause = time.Second

// metricsGrace is how long a stop waits until the metrics are written.
const metricsGrace = time.Second

// metrics writes the metrics of a controller to a file for the textfile collector of
// node_exporter when they have changed. A nil *metrics does nothing.
//
// The file may be on a file system that does not respond. Only a separate goroutine writes
// it, one at a time, so neither the loop nor a worker waits for it.
type metrics struct {
	path    string
	replace func(text []byte) error // replaces the file

	mu    sync.Mutex
	steps stepTable // changed by workers

	writer chan struct{} // holds one value while a goroutine writes
	// mover reads what nnf-dm has recorded about its token. Only the writer calls it.
	mover func() *mountstate.Token

	// Owned by the loop.
	now     snapshot // counters, and times of the API server
	last    snapshot // the last one that was to be written
	at      time.Time
	writing bool
	timer   *time.Timer // waits for the end of metricsPause; nil: no change is waiting
	check   *time.Timer // waits until the token of nnf-dm needs another look; nil: never
	due     bool        // it needs one now
	failure string      // text of the last failure, if the last write failed
}

// snapshot has all values of the metrics. It is comparable.
type snapshot struct {
	up      bool
	started time.Time
	written time.Time
	seen    [len(mountTypes)]bool
	mounts  mountCounts
	failed  [len(failureReasons)]uint64
	steps   stepTable
	api     struct {
		connected           bool
		since               time.Time
		outages, reconnects uint64
	}
	token struct {
		kind               kube.TokenKind // empty: no token
		expires, renewal   time.Time
		failing            bool
		renewals, failures uint64
	}
	mover moverToken // set by the writer
}

// moverToken is the recorded state of the token of nnf-dm.
type moverToken struct {
	known   bool
	expires time.Time
	failing bool
}

// mountTypes are the types of mounts in metrics. Other types are those of invalid objects.
var mountTypes = [...]string{"lustre", "xfs", "gfs2", "raw", "other"}

// mountCounts are the numbers of mounts by type and state.
type mountCounts [len(mountTypes)][len(shownStates)]int

// stepTable has the statistics of each of stepKinds.
type stepTable [len(stepKinds)]stepStats

type stepStats struct {
	count, failures uint64
	total, last     time.Duration
}

// failureReasons are the reasons of failed attempts in metrics, see failureReason.
var failureReasons = [...]string{"api", "refused", "conflict", "busy", "stuck", "other"}

func newMetrics(path string) *metrics {
	if path == "" {
		return nil
	}
	m := &metrics{path: path, writer: make(chan struct{}, 1), mover: func() *mountstate.Token { return ReadMoverToken("") }}
	m.replace = m.replaceFile
	m.now.up, m.now.started = true, time.Now()
	m.now.api.since = m.now.started
	return m
}

// checkMetricsFile returns an error if the value of metrics.textfile is not valid.
func checkMetricsFile(path string) error {
	if name, ok := strings.CutSuffix(filepath.Base(path), ".prom"); !ok || name == "" {
		return errors.New("the name of the file must end in .prom, because the textfile collector reads no other files, accepted: for example \"/var/lib/node_exporter/textfile_collector/clientmountd.prom\"")
	}
	return nil
}

// step records a step that a worker has run.
func (m *metrics) step(kind plan.Kind, d time.Duration, err error) {
	i := stepIndex(kind)
	if m == nil || i < 0 || errors.Is(err, errInterrupted) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.steps[i]
	s.count++
	s.total += d
	s.last = d
	if err != nil {
		s.failures++
	}
}

// attempt records the result of an attempt. The loop calls it.
func (m *metrics) attempt(res result) {
	if m != nil && res.failed {
		m.now.failed[slices.Index(failureReasons[:], failureReason(res))]++
	}
}

// apiState records a change of the connection to the API server. The loop calls it.
func (m *metrics) apiState(was, s kube.State) {
	if m == nil {
		return
	}
	api := &m.now.api
	outage := !was.Connected && was.LastError != nil // before
	if s.Connected != was.Connected {
		api.since = s.Since
	}
	switch {
	case s.Connected && outage:
		api.reconnects++
	case !s.Connected && s.LastError != nil && !outage:
		api.outages++
	}
	api.connected = s.Connected
}

// tokenState records a change of the token. The loop calls it.
func (m *metrics) tokenState(s kube.TokenState) {
	if m == nil {
		return
	}
	t := &m.now.token
	t.kind, t.expires, t.renewal = s.Kind, s.Expires, s.Renewal
	t.failing = s.Condition == kube.TokenFailing || s.Condition == kube.TokenExpired || s.Unsaved != ""
	t.renewals, t.failures = s.Renewals, s.Failures
}

// tokenKinds are the kinds of tokens in metrics.
var tokenKinds = [...]kube.TokenKind{kube.TokenPerNode, kube.TokenShared, kube.TokenOther}

// failureReason returns why an attempt has failed, one of failureReasons.
func failureReason(res result) string {
	switch {
	case res.api:
		return "api"
	case res.blocked != nil:
		return "conflict"
	case res.permanent:
		return "refused"
	}
	switch kind := failureKind(res.failure); kind {
	case mountstate.FailureBusy, mountstate.FailureStuck:
		return kind
	}
	return "other"
}

// shownStates are the states in metrics. An unmounted mount is in none of them.
var shownStates = [...]mountstate.State{mountstate.Mounting, mountstate.Mounted, mountstate.Unmounting, mountstate.Failed, mountstate.Busy, mountstate.Stuck, mountstate.Orphan}

// eachMount calls f with the type and state of each mount of the object that is not
// unmounted. The loop calls it. It uses the status instead of the record, which a worker may be
// changing.
func (o *object) eachMount(f func(typ string, s mountstate.State)) {
	if o.orphan != nil {
		for i := range o.orphan.Mounts {
			m := &o.orphan.Mounts[i]
			if s := (condition{orphan: true, unmounted: m.Unmounted}).state(); s != mountstate.Unmounted {
				f(m.Plan.Type, s)
			}
		}
		return
	}
	if o.newest == nil || o.last.finished && !o.running {
		return
	}
	want := dws.Mounted
	if o.newest.DeletionTimestamp != nil || o.newest.Spec.DesiredState != dws.Mounted {
		want = dws.Unmounted
	}
	failure := ""
	if o.last.failed && (!o.running || o.failures > 0) { // a retry leaves the state of the failure in place
		if failure = failureKind(o.last.failure); o.last.api {
			failure = mountstate.FailureAPI
		}
	}
	// While no attempt runs, its last status is newer than that of the watch.
	status := &o.newest.Status
	if !o.running && o.work != nil && o.work.status != nil {
		status = o.work.status
	}
	for i := range o.newest.Spec.Mounts {
		c := condition{unmounting: want == dws.Unmounted}
		if i < len(status.Mounts) && status.Mounts[i].State == want && status.Mounts[i].Ready {
			c.ready, c.unmounted = true, c.unmounting
		} else {
			c.failure = failure
		}
		if s := c.state(); s != mountstate.Unmounted {
			f(o.newest.Spec.Mounts[i].Type, s)
		}
	}
}

// typeIndex returns the index in mountTypes of spec.mounts[].type.
func typeIndex(typ string) int {
	if typ == dws.TypeRaw {
		typ = "raw"
	}
	if i := slices.Index(mountTypes[:], typ); i >= 0 {
		return i
	}
	return len(mountTypes) - 1
}

// takeMetrics returns the current values.
func (c *Controller) takeMetrics() snapshot {
	m := c.metrics
	m.now.mounts = mountCounts{}
	for _, o := range c.objects {
		o.eachMount(func(typ string, s mountstate.State) {
			t := typeIndex(typ)
			m.now.seen[t] = true
			m.now.mounts[t][slices.Index(shownStates[:], s)]++
		})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.steps = m.steps
	return m.now
}

// publishMetrics writes the metrics if they have changed. The loop calls it after each call.
func (c *Controller) publishMetrics() {
	m := c.metrics
	if m == nil || m.writing || m.timer != nil {
		return
	}
	if c.takeMetrics() == m.last && !m.due {
		return
	}
	if wait := metricsPause - time.Since(m.at); !m.at.IsZero() && wait > 0 {
		m.timer = time.AfterFunc(wait, func() { c.do(func() { m.timer = nil }) })
		return
	}
	m.last, m.writing, m.due, m.at = m.now, true, false, time.Now() // after a failure only a change causes another write
	if m.check != nil {
		m.check.Stop()
	}
	go func() {
		next, err := m.write(m.last) // the loop does not change it while writing is set
		c.do(func() {
			m.writing = false
			if c.metricsWritten(err); next > 0 {
				m.check = time.AfterFunc(next, func() { c.do(func() { m.due = true }) })
			}
		})
	}()
}

// moverPause is the time between two looks at a token of nnf-dm that is not renewed.
const moverPause = time.Hour

// moverState returns the state of the token of nnf-dm for the metrics, and when it needs another look;
// 0: never. nnf-dm does not report changes to clientmountd. If it renews its token in time, that is
// noticed in the middle between the renewal and the expiry: one look in the life of a token.
func moverState(t *mountstate.Token, now time.Time) (s moverToken, next time.Duration) {
	if t == nil {
		return s, 0
	}
	s.known = true
	if t.Expires != nil {
		s.expires = *t.Expires
	}
	switch t.Condition {
	case mountstate.TokenValid, mountstate.TokenRetrying:
		if t.Expires == nil || t.Renewal == nil {
			return s, 0
		}
		middle := t.Renewal.Add(t.Expires.Sub(*t.Renewal) / 2)
		return s, max(middle.Sub(now)+time.Second, moverPause/60)
	case mountstate.TokenUnknown:
		return s, 0
	}
	s.failing = true
	return s, moverPause
}

// metricsWritten logs a failure once per text, and its end.
func (c *Controller) metricsWritten(err error) {
	m := c.metrics
	switch {
	case err == nil && m.failure != "":
		m.failure = ""
		c.o.Log.Info("the metrics are written again", "path", m.path, daemon.EventID(eventMetrics))
	case err != nil && m.failure != err.Error():
		m.failure = err.Error()
		c.o.Log.Warn("cannot write the metrics; mounts are not affected", "path", m.path, "error", err,
			"hint", "the directory of metrics.textfile must exist, and its file system must have free space; clientmountd tries again at the next change", daemon.EventID(eventMetrics))
	}
}

// closeMetrics writes the last values at a stop. The mounts stay as they are.
func (c *Controller) closeMetrics() {
	m := c.metrics
	if m == nil {
		return
	}
	for _, timer := range []*time.Timer{m.timer, m.check} {
		if timer != nil {
			timer.Stop()
		}
	}
	s := c.takeMetrics()
	s.up = false
	if s.api.connected {
		s.api.connected, s.api.since = false, time.Now()
	}
	written := make(chan error, 1)
	go func() {
		_, err := m.write(s)
		written <- err
	}()
	limit := time.NewTimer(metricsGrace)
	defer limit.Stop()
	select {
	case err := <-written:
		c.metricsWritten(err)
	case <-limit.C:
		c.metricsWritten(errors.New("the file system does not respond"))
	}
}

// write writes the values, and returns when the token of nnf-dm needs another look; 0: never. It must
// not be called by the loop or a worker.
func (m *metrics) write(s snapshot) (next time.Duration, err error) {
	m.writer <- struct{}{}
	defer func() { <-m.writer }()
	s.written = time.Now()
	err = daemon.Safely(func() error {
		s.mover, next = moverState(m.mover(), s.written)
		return m.replace(s.text())
	})
	return next, err
}

func (m *metrics) replaceFile(text []byte) error {
	dir, err := safepath.OpenDirectory(filepath.Dir(m.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(m.path)
	// The collector ignores names without the suffix .prom.
	return safepath.ReplaceFile(dir.FD(), name, name+".new", text, -1, -1)
}
