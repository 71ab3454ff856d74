package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// The kinds of journal records, by their stable MESSAGE_ID. The meaning of an ID never
// changes: sites search for IDs and raise alerts on them.
var (
	EventStarted       = daemon.Event{ID: "2d6f0c1b8a7e4f52b93c5d1e60a74f21", Name: "dm-started"}
	EventConfigRefused = daemon.Event{ID: "c85b1e0f4a3d4c6e9f72a1b8d5e36c22", Name: "dm-config-refused"}
	EventIdle          = daemon.Event{ID: "71a9e3c5d20b4f8d8e6c4b7a9f013d23", Name: "dm-idle"}

	eventRefused    = daemon.Event{ID: "e40c7d92b1a6453f8c5e2f9d7b306a24", Name: "dm-refused"}
	eventCreated    = daemon.Event{ID: "18f5b6a3c9d7402eb4e1d8c6f2a57925", Name: "dm-created"}
	eventEnded      = daemon.Event{ID: "5c2e8f7d1b0a4936a7d4c3e9b8f16026", Name: "dm-ended-by-user"}
	eventAPI        = daemon.Event{ID: "9b7d4e6f0c3a45128f1e5a2c7d9b8e27", Name: "dm-api"}
	eventFollow     = daemon.Event{ID: "f36a1c8e5d7b4290a8c6e0d4f9b27128", Name: "dm-follow"}
	eventSuppressed = daemon.Event{ID: "6e1c9f4a7b2d4c358a0e5d3f8b6c7131", Name: "dm-suppressed"}
	eventRPCPanic   = daemon.Event{ID: "0a4d9e7c2f5b48618d3e6b1f7c9a0529", Name: "dm-panic"}
)

// Events returns all kinds of records, for the documentation, the message catalogue and
// the tests that check them.
func Events() []daemon.Event {
	return []daemon.Event{
		EventStarted, EventConfigRefused, EventIdle,
		eventRefused, eventCreated, eventEnded, eventAPI, eventFollow, eventSuppressed, eventRPCPanic,
	}
}

// Settings are the settings that can change while the service runs.
type Settings struct {
	Policy       datamovement.Policy   // the service sets Node
	Choices      *datamovement.Options // the allowed options of dcp and mpirun
	Limits       Limits
	MaxWait      time.Duration // of one request
	LookupExpiry time.Duration // how long objects that administrators maintain are cached
}

// Limits are the limits of one user, except BatchSize, which is the limit of a request.
// They correspond to the settings limits.*.
type Limits struct {
	Streams          int
	Waiters          int
	CreatesPerSecond int
	CreateBurst      int
	Movements        int   // existing ones
	MovementBytes    int64 // of existing ones
	BatchSize        int
	API              APIShare
}

// Options configure a Service. Idle and Status may be nil.
type Options struct {
	Node                string // this compute
	Rabbit              string // empty: looked up
	SystemConfiguration string
	Client              Client
	Settings            Settings
	Idle                *unixsocket.Idle
	Records             *unixsocket.Records // nil: no limit for log records caused by callers
	Status              func(string)        // called with the status line when it changes
	Log                 *slog.Logger
}

// Service implements the operations of both versions of the protocol.
type Service struct {
	o          Options
	log        *slog.Logger
	settings   atomic.Pointer[Settings]
	api        *apiServer
	look       *lookup
	absent     absent
	lists      lists
	tombstones tombstones
	jobs       jobs
	quota      *quota
	status     statusLine

	streams, waiters, creates *unixsocket.Limiter

	stopping chan struct{} // closed when waits must end early
	stop     func()
	ending   context.Context // cancelled by Close
	end      context.CancelFunc

	mu    sync.Mutex
	feeds map[string]*feed // by namespace
}

// New returns a service. It sends no request.
func New(o Options) *Service {
	s := &Service{
		o: o, log: o.Log, status: statusLine{report: o.Status}, quota: newQuota(), api: newAPIServer(o.Client), stopping: make(chan struct{}), feeds: make(map[string]*feed),
		streams: unixsocket.NewLimiter(unixsocket.LimiterOptions{}),
		waiters: unixsocket.NewLimiter(unixsocket.LimiterOptions{}),
		creates: unixsocket.NewLimiter(unixsocket.LimiterOptions{}),
	}
	s.ending, s.end = context.WithCancel(context.Background())
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	s.SetSettings(o.Settings)
	s.look = newLookup(s.api, &o, func() time.Duration { return s.settings.Load().LookupExpiry })
	return s
}

// SetSettings replaces the settings. Running requests keep their slots.
func (s *Service) SetSettings(n Settings) {
	n.Policy.Node = s.o.Node
	s.settings.Store(&n)
	l := n.Limits
	s.api.queue.set(l.API)
	s.streams.Set(unixsocket.LimiterOptions{What: "requests", User: unixsocket.Quota{Slots: l.Streams}})
	s.waiters.Set(unixsocket.LimiterOptions{What: "waiting requests", User: unixsocket.Quota{Slots: l.Waiters}})
	s.creates.Set(unixsocket.LimiterOptions{What: "data movements", User: unixsocket.Quota{Rate: float64(l.CreatesPerSecond), Burst: l.CreateBurst}})
}

// EndWaits ends all current and future waits, so that a shutdown does not have to wait
// for them.
func (s *Service) EndWaits() { s.stop() }

// Close ends all watches and returns when their goroutines have ended. No requests may
// follow.
func (s *Service) Close() {
	s.stop()
	s.end()
	s.jobs.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.feeds {
		f.stop()
	}
}

// feed returns the feed of a namespace. Feeds are kept, because there are few rabbits.
func (s *Service) feed(namespace string) *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.feeds[namespace]
	if f == nil {
		f = &feed{
			api: s.api, namespace: namespace, node: s.o.Node, log: s.log,
			enter: s.o.Idle.Enter, leave: s.o.Idle.Leave, status: &s.status,
			waiting: make(map[string]*waiting), lost: make(chan struct{}, 1),
		}
		s.feeds[namespace] = f
	}
	return f
}

func (s *Service) policy() datamovement.Policy { return s.settings.Load().Policy }

// verdict records a refusal and returns the error for the caller.
func (s *Service) verdict(c datamovement.Caller, object string, v datamovement.Verdict, missing *datamovement.Fault) error {
	if v.Allowed() {
		return nil
	}
	s.record(c, object, v.Outcome.String()+": "+v.Reason)
	return v.Err(missing)
}

// fault converts an error to a Fault. It records invalid requests as refusals, and logs
// errors of the API server, because the caller does not get their text.
func (s *Service) fault(c datamovement.Caller, object string, err error) error {
	f := datamovement.Explain(err)
	switch {
	case f == nil:
		return nil
	case f.Kind == datamovement.ErrInvalid:
		s.record(c, object, f.Error())
	case f.Reason == v2.ErrorReason_INTERNAL || f.Reason == v2.ErrorReason_UNAVAILABLE:
		if s.o.Records.Allow(c.UID) {
			s.log.Warn("a request could not be served", "rpc", c.RPC, "uid", c.UID, "object", clip(object), "error", unwrapped(err), daemon.EventID(eventAPI))
		}
	}
	return f
}

// record writes an audit record.
func (s *Service) record(c datamovement.Caller, object, reason string) {
	audit(s.log, s.o.Records, c, object, reason)
}

// recordNoMemory writes an audit record if a charge failed for lack of memory.
func (s *Service) recordNoMemory(c datamovement.Caller, object string, err error) {
	if errors.Is(err, errNoMemory) {
		s.record(c, object, err.Error())
	}
}

func audit(log *slog.Logger, records *unixsocket.Records, c datamovement.Caller, object, reason string) {
	if records.Allow(c.UID) {
		log.Warn("refused", "uid", c.UID, "pid", c.PID, "rpc", c.RPC, "object", clip(object), "reason", clip(reason), daemon.EventID(eventRefused))
	}
}

// NewRecords returns the limits of the log records that callers cause.
func NewRecords(log *slog.Logger, rate float64, burst int) *unixsocket.Records {
	return unixsocket.NewRecords(unixsocket.RecordOptions{Rate: rate, Burst: burst, Suppressed: func(x unixsocket.Suppressed) {
		if x.Users == 1 {
			log.Warn("log records suppressed", "uid", x.UID, "count", x.Count, daemon.EventID(eventSuppressed))
		} else {
			log.Warn("log records of many users suppressed", "count", x.Count, daemon.EventID(eventSuppressed))
		}
	}})
}

// clip limits the length of texts of callers in log records and errors.
func clip(s string) string { return text.Clip(s, 512) }

// unwrapped returns the cause of the innermost fault, whose text is for the log.
func unwrapped(err error) error {
	for f := (*datamovement.Fault)(nil); errors.As(err, &f); f = nil {
		cause := f.Cause()
		if cause == nil {
			break
		}
		err = cause
	}
	return err
}

// statusLine reports, in one line for systemctl status, the namespaces in which data
// movements are watched.
type statusLine struct {
	report func(string) // may be nil

	mu   sync.Mutex
	lost map[string]bool // by watched namespace
}

// watch reports that a namespace is watched, or that its watch is lost.
func (s *statusLine) watch(namespace string, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = make(map[string]bool)
	}
	if was, ok := s.lost[namespace]; !ok || was != lost {
		s.lost[namespace] = lost
		s.send()
	}
}

// end reports that a namespace is no longer watched.
func (s *statusLine) end(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lost, namespace)
	s.send()
}

// send reports the line. The caller holds mu.
func (s *statusLine) send() {
	if s.report != nil {
		s.report(s.text())
	}
}

func (s *statusLine) text() string {
	if len(s.lost) == 0 {
		return "waiting for requests"
	}
	var lost []string
	for ns, is := range s.lost {
		if is {
			lost = append(lost, ns)
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		return "the watch on the data movements in " + strings.Join(lost, ", ") + " failed; retrying"
	}
	return "watching the data movements in " + strings.Join(slices.Sorted(maps.Keys(s.lost)), ", ")
}
