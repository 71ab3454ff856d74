package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ioctls of linux/fs.h that stop and release all writers of a file system.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// A writer on a frozen file system is in state D: no signal ends it. Run returns in
// time, names it, and reaps it when the file system thaws.
func TestExecStateD(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	mnt, thaw := frozen(t)

	var log bytes.Buffer
	logged := make(chan struct{})
	h := slog.NewTextHandler(writer(func(p []byte) (int, error) { defer close(logged); return log.Write(p) }), nil)
	e := &Exec{Log: slog.New(h)}
	var ce *CommandError
	bounded(t, 1200*time.Millisecond, func() {
		_, err := e.Run(t.Context(), Command{Argv: []string{"touch", mnt + "/x"}, Timeout: 200 * time.Millisecond})
		if !errors.As(err, &ce) || !ce.TimedOut || ce.PID == 0 || !errors.Is(err, errSurvived) {
			t.Fatalf("got %v", err)
		}
	})
	if !strings.Contains(ce.Error(), "error: still running after SIGKILL as pid ") || !strings.Contains(ce.Error(), "(time limit of 200ms reached)") {
		t.Error(ce)
	}
	// Others are not held up by it.
	if _, err := e.Run(t.Context(), Command{Argv: []string{"true"}, Timeout: time.Second}); err != nil {
		t.Error("meanwhile:", err)
	}
	thaw()
	select {
	case <-logged:
	case <-time.After(10 * time.Second):
		t.Fatal("it was never reaped")
	}
	if err := unix.Kill(ce.PID, 0); err != unix.ESRCH {
		t.Error("it is still there:", err)
	}
	if !strings.Contains(log.String(), "signal: killed") && !strings.Contains(log.String(), "signal: terminated") {
		t.Errorf("log: %s", log.String())
	}
}
