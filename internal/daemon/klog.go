package daemon

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// QuietKlog sends what the Kubernetes client library logs through klog to
// logger, at debug level: whoever calls the library reports its errors
// itself, with what they mean. Call it once, before the library is used.
//
// klog flushes files on a timer; it has none here, and a timer that some
// import may have started is stopped.
func QuietKlog(logger *slog.Logger) {
	klog.StopFlushDaemon()
	klog.SetSlogLogger(slog.New(atDebug{logger.Handler()}))
}

// atDebug logs everything at debug level.
type atDebug struct{ slog.Handler }

func (h atDebug) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug)
}

func (h atDebug) Handle(ctx context.Context, r slog.Record) error {
	// klog's bridge passes errors on without asking Enabled.
	if !h.Enabled(ctx, r.Level) {
		return nil
	}
	r = r.Clone()
	if r.Level != slog.LevelDebug {
		r.AddAttrs(slog.String("klog_level", r.Level.String()))
		r.Level = slog.LevelDebug
	}
	return h.Handler.Handle(ctx, r)
}

func (h atDebug) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atDebug{h.Handler.WithAttrs(attrs)}
}

func (h atDebug) WithGroup(name string) slog.Handler {
	return atDebug{h.Handler.WithGroup(name)}
}
