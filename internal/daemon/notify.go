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

// maxStatus limits the status text, in bytes. Escaping makes it at most four times as
// long, which is less than the limit of systemd, 4096.
const maxStatus = 512

// Notifier reports the state of the process to the service manager (sd_notify(3)).
// Without NOTIFY_SOCKET, and on a nil Notifier, the methods send nothing. The first of
// several failures in a row is logged. It is safe for concurrent use.
type Notifier struct {
	log *slog.Logger

	mu      sync.Mutex
	ready   bool
	stopped bool // STOPPING=1 has been sent
	status  string
	failing bool
}

// newNotifier returns a Notifier that logs its errors to log.
func newNotifier(log *slog.Logger) *Notifier { return &Notifier{log: log} }

// Ready reports that the start is complete. Only the first call sends a message.
func (n *Notifier) Ready() {
	n.locked(func() {
		if !n.ready {
			n.ready = true
			n.send(sddaemon.SdNotifyReady)
		}
	})
}

// Status sets the line that `systemctl status` shows. It sends a message if the text
// has changed. Text from objects is safe, because it cannot start a second line.
func (n *Notifier) Status(status string) {
	status = text.Escape(clip(status, maxStatus))
	n.locked(func() {
		if n.status != status {
			n.status = status
			n.send("STATUS=" + status)
		}
	})
}

// stopping reports that the shutdown has started. Only the first call sends a message.
func (n *Notifier) stopping() {
	n.locked(func() {
		if !n.stopped {
			n.stopped = true
			n.send(sddaemon.SdNotifyStopping)
		}
	})
}

// reloading reports the start of a reload, calls reload, and reports its end, even
// after a panic. Before the process is ready and while it stops, reloading only calls
// reload: systemd would take the messages for the end of the start or of the stop.
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

// ping sends a watchdog ping.
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
			"hint", "check that the unit sets NotifyAccess= and that NOTIFY_SOCKET is reachable")
	}
	n.failing = err != nil
}

// Probe checks that the main loop makes progress: it sends a token through the loop
// and returns nil when the token has come back. It must return when ctx is done. The
// loop itself cannot report progress, because an idle loop does as little as a stuck
// one.
type Probe func(ctx context.Context) error

// watchdog pings the service manager while the main loop responds.
type watchdog struct {
	notifier *Notifier
	log      *slog.Logger
	interval time.Duration
}

// newWatchdog reads WATCHDOG_USEC and WATCHDOG_PID (sd_watchdog_enabled(3)). If they
// are invalid, it returns an error and a watchdog that does nothing.
func newWatchdog(n *Notifier, log *slog.Logger) (*watchdog, error) {
	interval, err := sddaemon.SdWatchdogEnabled(false)
	return &watchdog{notifier: n, log: log, interval: interval}, err
}

// Run sends pings until ctx is done. If the service manager expects no pings, it
// returns immediately, without a timer. It probes every half interval, which costs one
// wake-up. After a failed probe it sends no ping and probes again, until the service
// manager kills the process. It logs the first failed probe.
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
				w.log.Warn("main loop responds again", EventID(EventLoopAnswers))
			}
			timer.Reset(w.interval / 2)
		default:
			if !stuck {
				w.log.Error("main loop does not respond; watchdog pings are suspended", EventID(EventLoopStuck),
					"error", err, durationKey, time.Since(start), "watchdog", w.interval,
					"hint", "the service manager will kill the process; the journal then shows the stack of each goroutine")
			}
			timer.Reset(w.interval / 16) // a probe that fails immediately must not cause a busy loop
		}
		stuck = err != nil
	}
}

var errNoAnswer = errors.New("no answer in time")

// probe has a timeout of a quarter of the interval. So there is time for a second
// probe, and a failure is logged before the service manager kills the process.
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
		return ctx.Err() // a late answer is a failure
	})
}
