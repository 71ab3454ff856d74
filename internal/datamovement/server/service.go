package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// Settings are what may change while the service runs.
type Settings struct {
	Policy       datamovement.Policy
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
	api        *remote
	look       *lookup
	turns      *turns
	absent     absent
	lists      lists
	tombstones tombstones
	jobs       jobs
	living     *living
	sight      sight

	streams, waiters, creates *unixsocket.Limiter

	stopping chan struct{} // closed when waits end early
	stop     func()
	ending   context.Context // ends in Close
	end      context.CancelFunc

	mu    sync.Mutex
	feeds map[string]*feed // by namespace
}

// New makes a service that has not asked anybody anything yet.
func New(o Options) *Service {
	s := &Service{
		o: o, log: o.Log, sight: sight{tell: o.Status}, stopping: make(chan struct{}), feeds: make(map[string]*feed),
		streams: unixsocket.NewLimiter(unixsocket.LimiterOptions{}),
		waiters: unixsocket.NewLimiter(unixsocket.LimiterOptions{}),
		creates: unixsocket.NewLimiter(unixsocket.LimiterOptions{}),
		turns:   new(turns),
	}
	s.living = newLiving()
	s.ending, s.end = context.WithCancel(context.Background())
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	s.SetSettings(o.Settings)
	s.api = newRemote(fair{o.Client, s.turns})
	s.look = newLookup(s.api, &o, func() time.Duration { return s.settings.Load().LookupExpiry })
	return s
}

// SetSettings replaces the settings; what is going on keeps its place.
func (s *Service) SetSettings(n Settings) {
	s.settings.Store(&n)
	l := n.Limits
	s.turns.set(l.API)
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
			enter: s.o.Idle.Enter, leave: s.o.Idle.Leave, sight: &s.sight,
			waiting: make(map[string]*waiting), lost: make(chan struct{}, 1),
		}
		s.feeds[namespace] = f
	}
	return f
}

// Call is one request: who, and by which method of which version.
type Call struct {
	datamovement.Caller
	RPC string
}

func (s *Service) access(c Call) datamovement.Access {
	return datamovement.Access{Policy: s.settings.Load().Policy, Caller: c.Caller, Node: s.o.Node}
}

// verdict records a refusal and returns what the caller gets.
func (s *Service) verdict(c Call, object string, v datamovement.Verdict, missing *datamovement.Fault) error {
	if v.Allowed() {
		return nil
	}
	s.record(c, object, v.Outcome.String()+": "+v.Reason)
	return v.Err(missing)
}

// judged passes an error on. What blames the request is recorded as a refusal,
// and what the API server says goes into the log, for the caller is not told.
func (s *Service) judged(c Call, object string, err error) error {
	f := datamovement.Explain(err)
	switch {
	case f == nil:
		return nil
	case f.Kind == datamovement.ErrInvalid:
		s.record(c, object, f.Error())
	case f.Reason == datamovement.ReasonInternal || f.Reason == datamovement.ReasonUnavailable:
		if s.o.Records.Allow(c.UID) {
			s.log.Warn("a request could not be served", "rpc", c.RPC, "uid", c.UID, "object", clip(object), "error", unwrapped(err), daemon.EventID(eventAPI))
		}
	}
	return f
}

// record is the audit record.
func (s *Service) record(c Call, object, reason string) {
	audit(s.log, s.o.Records, c, object, reason)
}

// recordNoRoom is record for an error of tab.
func (s *Service) recordNoRoom(c Call, object string, err error) {
	if errors.Is(err, errNoRoom) {
		s.record(c, object, err.Error())
	}
}

func audit(log *slog.Logger, records *unixsocket.Records, c Call, object, reason string) {
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
