package kube

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

// client-go's own log is global: what it says must never be louder than debug,
// and its chatter (bodies hold what others wrote) never be there at all.
func TestQuietKlog(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	var out bytes.Buffer
	level := new(slog.LevelVar)
	redirectKlog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})).With("part", "kube"))

	say := func() {
		log := klog.Background().WithName("reflector").WithValues("type", "ClientMount")
		log.V(2).Info("Request Body", "body", "secret")
		log.V(1).Info("Feature gate default state")
		klog.V(6).Info("chatter")
		log.Info("contextual")
		klog.Warning("warning")
		klog.ErrorS(errors.New("refused"), "error", "url", "https://x")
	}
	say()
	if out.Len() > 0 {
		t.Errorf("logged above debug level: %s", &out)
	}
	level.Set(slog.LevelDebug)
	say()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{"msg=contextual", "msg=warning", "err=refused"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %s", len(lines), len(want), &out)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], "level=DEBUG") || !strings.Contains(lines[i], w) || !strings.Contains(lines[i], "part=kube") || !strings.Contains(lines[i], "from=client-go") {
			t.Errorf("line %d: %s", i, lines[i])
		}
	}
	if !strings.Contains(lines[0], "type=ClientMount") || !strings.Contains(lines[2], "its_level=ERROR") {
		t.Errorf("what it was is lost: %s", &out)
	}
}
