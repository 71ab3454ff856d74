package kube

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// lowered passes every record on at debug level: client-go reports at its own
// levels what we report ourselves, once and in our words.
type lowered struct{ slog.Handler }

func (l lowered) Enabled(ctx context.Context, _ slog.Level) bool {
	return l.Handler.Enabled(ctx, slog.LevelDebug)
}

func (l lowered) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return l.Handler.Handle(ctx, r)
}

func (l lowered) WithAttrs(a []slog.Attr) slog.Handler { return lowered{l.Handler.WithAttrs(a)} }
func (l lowered) WithGroup(g string) slog.Handler      { return lowered{l.Handler.WithGroup(g)} }

var klogOnce sync.Once

// quietKlog leads client-go's log, which is global, into ours. The first
// client of the process wins.
func quietKlog(log *slog.Logger) {
	klogOnce.Do(func() { klog.SetSlogLogger(slog.New(lowered{log.Handler()})) })
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
