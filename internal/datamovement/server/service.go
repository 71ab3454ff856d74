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

// The kinds of journal records, by their stable MESSAGE_ID. An id is never given
// to another meaning: sites search and alert by it.
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

// Events lists them, for the tests that keep the documentation and the message
// catalogue complete.
func Events() []daemon.Event {
	return []daemon.Event{
		EventStarted, EventConfigRefused, EventIdle,
		eventRefused, eventCreated, eventEnded, eventAPI, eventFollow, eventSuppressed, eventRPCPanic,
	}
}

// Settings are what may change while the service runs.
type Settings struct {
	Policy       datamovement.Policy   // Node is filled in by the service
	Choices      *datamovement.Options // which dcp and mpirun options are allowed
	Limits       Limits
	MaxWait      time.Duration // of one request
	LookupExpiry time.Duration // how long what the administrator set up is remembered
}

// Limits are those of one user, but for BatchSize, which is that of a request.
// Their settings are limits.* of the configuration.
type Limits struct {
	Streams          int
	Waiters          int
	CreatesPerSecond int
	CreateBurst      int
	Movements        int   // that exist
	MovementBytes    int64 // of those
	BatchSize        int
	API              APIShare
}

// Options are what the service is made of. Idle and Status may be nil.
type Options struct {
	Node                string // this compute
	Rabbit              string // empty: looked up
	SystemConfiguration string
	Client              Client
	Settings            Settings
	Idle                *unixsocket.Idle
	Records             *unixsocket.Records // nil: callers may cause any number of log records
	Status              func(string)        // told in one line what goes on, when that changes; may be nil
	Log                 *slog.Logger
}

// Service is what both versions of the protocol do.
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

	stopping chan struct{} // closed when waits end early
	stop     func()
	ending   context.Context // ends in Close
	end      context.CancelFunc

	mu    sync.Mutex
	feeds map[string]*feed // by namespace
}

// New makes a service. It sends no request yet.
func New(o Options) *Service {
	s := &Service{
		o: o, log: o.Log, status: statusLine{tell: o.Status}, quota: newQuota(), api: newAPIServer(o.Client), stopping: make(chan struct{}), feeds: make(map[string]*feed),
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

// SetSettings replaces the settings; what is going on keeps its place.
func (s *Service) SetSettings(n Settings) {
	n.Policy.Node = s.o.Node
	s.settings.Store(&n)
	l := n.Limits
	s.api.queue.set(l.API)
	s.streams.Set(unixsocket.LimiterOptions{What: "requests", User: unixsocket.Quota{Slots: l.Streams}})
	s.waiters.Set(unixsocket.LimiterOptions{What: "waiting requests", User: unixsocket.Quota{Slots: l.Waiters}})
	s.creates.Set(unixsocket.LimiterOptions{What: "data movements", User: unixsocket.Quota{Rate: float64(l.CreatesPerSecond), Burst: l.CreateBurst}})
}

// EndWaits lets every request that waits return what is known, now and in
// future, so that a shutdown need not outwait them.
func (s *Service) EndWaits() { s.stop() }

// Close ends all watches and returns when their goroutines have ended. No
// request may come any more.
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

// feed returns the one of a namespace. Rabbits are few: feeds are kept.
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

// verdict records a refusal and returns what the caller gets.
func (s *Service) verdict(c datamovement.Caller, object string, v datamovement.Verdict, missing *datamovement.Fault) error {
	if v.Allowed() {
		return nil
	}
	s.record(c, object, v.Outcome.String()+": "+v.Reason)
	return v.Err(missing)
}

// judged turns an error into a Fault. It records errors that blame the request as
// refusals, and logs those of the API server, whose text the caller does not get.
func (s *Service) judged(c datamovement.Caller, object string, err error) error {
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

// record is the audit record.
func (s *Service) record(c datamovement.Caller, object, reason string) {
	audit(s.log, s.o.Records, c, object, reason)
}

// recordNoMemory is record for an error of charge.
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

// NewRecords makes the limits of the log records that callers cause.
func NewRecords(log *slog.Logger, rate float64, burst int) *unixsocket.Records {
	return unixsocket.NewRecords(unixsocket.RecordOptions{Rate: rate, Burst: burst, Suppressed: func(x unixsocket.Suppressed) {
		if x.Users == 1 {
			log.Warn("log records suppressed", "uid", x.UID, "count", x.Count, daemon.EventID(eventSuppressed))
		} else {
			log.Warn("log records of many users suppressed", "count", x.Count, daemon.EventID(eventSuppressed))
		}
	}})
}

// clip bounds what callers get into the log.
func clip(s string) string { return text.Clip(s, 512) }

// unwrapped is the innermost fault's cause, whose text is for the log.
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

// statusLine reports in one line for systemctl status where data movements are
// watched.
type statusLine struct {
	tell func(string) // may be nil

	mu   sync.Mutex
	lost map[string]bool // by namespace that is watched
}

// watch reports that a namespace is watched, or that its watch is lost for now.
func (s *statusLine) watch(namespace string, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = make(map[string]bool)
	}
	if was, ok := s.lost[namespace]; !ok || was != lost {
		s.lost[namespace] = lost
		s.say()
	}
}

// end reports that a namespace is not watched any more.
func (s *statusLine) end(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lost, namespace)
	s.say()
}

// say reports the line. It is called under mu.
func (s *statusLine) say() {
	if s.tell != nil {
		s.tell(s.text())
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
		return "the API server does not show the data movements of " + strings.Join(lost, ", ") + ", trying again"
	}
	return "following data movements of " + strings.Join(slices.Sorted(maps.Keys(s.lost)), ", ")
}
