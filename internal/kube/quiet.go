package kube

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// lowered passes on, at debug level, what client-go itself finds worth an
// information, a warning or an error: those are reported by us as well, once
// and in our words. What it says at its own verbosity levels (request bodies,
// feature gates) is for its developers and is left out.
type lowered struct{ slog.Handler }

func (l lowered) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo && l.Handler.Enabled(ctx, slog.LevelDebug)
}

func (l lowered) Handle(ctx context.Context, r slog.Record) error {
	// klog's bridge passes errors on without asking Enabled.
	if !l.Enabled(ctx, r.Level) {
		return nil
	}
	r = r.Clone()
	r.AddAttrs(slog.String("from", "client-go"), slog.String("its_level", r.Level.String()))
	r.Level = slog.LevelDebug
	return l.Handler.Handle(ctx, r)
}

func (l lowered) WithAttrs(a []slog.Attr) slog.Handler { return lowered{l.Handler.WithAttrs(a)} }
func (l lowered) WithGroup(g string) slog.Handler      { return lowered{l.Handler.WithGroup(g)} }

var klogOnce sync.Once

// quietKlog leads client-go's log, which is global, into ours. The first
// client of the process wins.
func quietKlog(log *slog.Logger) { klogOnce.Do(func() { leadKlog(log) }) }

// leadKlog also stops the timer by which klog flushes files that it has not.
func leadKlog(log *slog.Logger) {
	klog.StopFlushDaemon()
	klog.SetSlogLogger(slog.New(lowered{log.Handler()}))
}

// warnings logs what the server warns about, such as deprecated versions.
type warnings struct{ log *slog.Logger }

var _ rest.WarningHandler = warnings{}

// HandleWarningHeader implements rest.WarningHandler.
func (w warnings) HandleWarningHeader(code int, agent, text string) {
	if code == 299 && text != "" {
		w.log.Debug("the API server warns", "text", clip(text))
	}
}
