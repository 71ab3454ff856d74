package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// maxStatus bounds the status text, in bytes. Escaping makes it four times as
// long at worst, which is still less than the 4096 that systemd takes.
const maxStatus = 512

// Notifier tells the service manager how the process is doing (sd_notify(3)).
// Without NOTIFY_SOCKET, and on a nil Notifier, every method does nothing. A
// message that cannot be sent is logged once. Safe for concurrent use.
type Notifier struct {
	log *slog.Logger

	mu      sync.Mutex
	ready   bool
	stopped bool // the service manager knows that the shutdown has started
	status  string
	failing bool
}

// newNotifier returns a Notifier that logs its errors to log.
func newNotifier(log *slog.Logger) *Notifier { return &Notifier{log: log} }

// Ready says that the start is complete. Only the first call sends.
func (n *Notifier) Ready() {
	n.locked(func() {
		if !n.ready {
			n.ready = true
			n.send(sddaemon.SdNotifyReady)
		}
	})
}

// Status sets the line that `systemctl status` shows. It is sent when the text
// has changed; text from objects is safe, because it cannot start a second line.
func (n *Notifier) Status(status string) {
	status = text.Escape(clip(status, maxStatus))
	n.locked(func() {
		if n.status != status {
			n.status = status
			n.send("STATUS=" + status)
		}
	})
}

// stopping says that the shutdown has started. Only the first call sends.
func (n *Notifier) stopping() {
	n.locked(func() {
		if !n.stopped {
			n.stopped = true
			n.send(sddaemon.SdNotifyStopping)
		}
	})
}

// reloading says that the configuration is being read again, calls reload,
// and says when that has ended, however it ended. Before the process is ready
// and while it stops only reload is called, because those messages would be
// taken for the end of the start or of the stop.
func (n *Notifier) reloading(reload func()) {
	tell := false
	n.locked(func() {
		if tell = n.ready && !n.stopped; tell {
			n.send(sddaemon.SdNotifyReloading + "\n" + sddaemon.SdNotifyMonotonicUsec())
		}
	})
	if tell {
		defer n.locked(func() {
			if !n.stopped {
				n.send(sddaemon.SdNotifyReady)
			}
		})
	}
	reload()
}

// ping tells the watchdog that we are alive.
func (n *Notifier) ping() { n.locked(func() { n.send(sddaemon.SdNotifyWatchdog) }) }

func (n *Notifier) locked(f func()) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *Notifier) send(state string) {
	_, err := sddaemon.SdNotify(false, state)
	if err != nil && !n.failing && n.log != nil {
		n.log.Warn("cannot notify the service manager", "error", err,
			"hint", "is NotifyAccess= set in the unit, and NOTIFY_SOCKET reachable?")
	}
	n.failing = err != nil
}

// Probe shows that the main loop makes progress: it sends a token through the loop
// and returns nil when the token came back. It must return when ctx ends. The loop
// itself cannot report progress, because an idle loop does nothing, as a stuck one.
type Probe func(ctx context.Context) error

// watchdog pings the service manager while the main loop answers.
type watchdog struct {
	notifier *Notifier
	log      *slog.Logger
	interval time.Duration
}

// newWatchdog reads what the service manager asks for: WATCHDOG_USEC and
// WATCHDOG_PID (sd_watchdog_enabled(3)). The error is a value that cannot be
// understood; the watchdog is then one that does nothing.
func newWatchdog(n *Notifier, log *slog.Logger) (*watchdog, error) {
	interval, err := sddaemon.SdWatchdogEnabled(false)
	return &watchdog{notifier: n, log: log, interval: interval}, err
}

// Run pings until ctx ends; it returns at once, without a timer, if the service
// manager asks for no pings. It probes at half the interval, so it costs one wake-up per
// half interval. After an unanswered probe it sends no ping and probes
// again, until the service manager ends the process; the first unanswered probe is
// logged.
func (w *watchdog) Run(ctx context.Context, probe Probe) {
	if w.interval <= 0 {
		return
	}
	stuck := false
	timer := time.NewTimer(w.interval / 2)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		err := w.probe(ctx, probe)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			w.notifier.ping()
			if stuck {
				w.log.Warn("main loop answers again", EventID(EventLoopAnswers))
			}
			timer.Reset(w.interval / 2)
		default:
			if !stuck {
				w.log.Error("main loop does not answer, the watchdog gets no pings", EventID(EventLoopStuck),
					"error", err, durationKey, time.Since(start), "watchdog", w.interval,
					"hint", "the service manager will end the process; the journal then shows where each goroutine was")
			}
			timer.Reset(w.interval / 16) // a probe that fails at once must not spin
		}
		stuck = err != nil
	}
}

var errNoAnswer = errors.New("no answer in time")

// probe leaves a quarter of the interval: a late answer still counts, and a
// missing one is logged before the process is ended.
func (w *watchdog) probe(ctx context.Context, probe Probe) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.interval/4, errNoAnswer)
	defer cancel()
	return Safely(func() error {
		if err := probe(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		return ctx.Err() // an answer that is late does not count
	})
}
