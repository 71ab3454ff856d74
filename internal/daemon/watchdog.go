package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"
)

// Probe proves that the main loop makes progress: it sends a token through the
// loop and returns nil when the token came back. It must return when ctx ends.
//
// A probe and not a sign of life from the loop itself, because an idle loop has
// nothing to do and a stuck one looks just the same.
type Probe func(ctx context.Context) error

// Watchdog pings the service manager while the main loop answers.
type Watchdog struct {
	notifier *Notifier
	log      *slog.Logger
	interval time.Duration
}

// NewWatchdog reads what the service manager asks for: WATCHDOG_USEC and
// WATCHDOG_PID (sd_watchdog_enabled(3)). The error is a value that cannot be
// understood; the Watchdog is then one that does nothing.
func NewWatchdog(n *Notifier, log *slog.Logger) (*Watchdog, error) {
	interval, err := sddaemon.SdWatchdogEnabled(false)
	return &Watchdog{notifier: n, log: log, interval: interval}, err
}

// Interval is the time after which the service manager ends a silent process; 0
// when nobody asks for pings.
func (w *Watchdog) Interval() time.Duration { return w.interval }

// Run pings until ctx ends; it returns at once, with no timer made, when nobody
// asks for pings. It probes at half the interval, so it costs one wake-up per
// half interval. An unanswered probe is not followed by a ping but by another
// probe, until the service manager loses patience; that is logged once, while
// there is still time to read the log.
func (w *Watchdog) Run(ctx context.Context, probe Probe) {
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
func (w *Watchdog) probe(ctx context.Context, probe Probe) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.interval/4, errNoAnswer)
	defer cancel()
	return Safely(func() error {
		if err := probe(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		return ctx.Err() // an answer after the end of its time is none
	})
}
