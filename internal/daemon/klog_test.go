package daemon

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/klog/v2"
)

func TestQuietKlog(t *testing.T) {
	defer klog.ClearLogger()
	defer goleak.VerifyNone(t)
	klog.StartFlushDaemon(1 << 40) // as an import could have done
	var out buffer
	level := new(slog.LevelVar)
	log, _, err := NewLogger(LogOptions{Format: "text", Writer: &out, Level: level})
	if err != nil {
		t.Fatal(err)
	}
	QuietKlog(log.With("source", "client-go"))

	say := func() {
		klog.Info("info")
		klog.Warning("warning")
		klog.ErrorS(errors.New("refused"), "error", "url", "https://x")
		klog.Background().WithName("reflector").WithValues("type", "ClientMount").Info("contextual")
	}
	say()
	if out.Len() > 0 {
		t.Errorf("logged above debug level: %s", &out)
	}
	level.Set(slog.LevelDebug)
	say()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines: %s", len(lines), &out)
	}
	for i, want := range []string{"msg=info", "msg=warning", "error", "type=ClientMount"} {
		if !strings.Contains(lines[i], "level=DEBUG") || !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "source=client-go") {
			t.Errorf("line %d: %s", i, lines[i])
		}
	}
	if !strings.Contains(lines[2], "refused") || !strings.Contains(lines[2], "klog_level=ERROR") {
		t.Errorf("what it was is lost: %s", lines[2])
	}
}
