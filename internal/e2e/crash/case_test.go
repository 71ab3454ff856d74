package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// patience bounds operations that take milliseconds.
const patience = 40 * time.Second

// killed is the exit code of a process that was killed by SIGKILL.
const killed = 128 + 9

// testCase is one ClientMount from its creation to its deletion, or two that share a mount.
type testCase struct {
	*set
	objects int // number of objects that the next daemon finds
	t       *testing.T
	name    string
	path    string
	daemons []*lab.Process
	flags   []string
}

func (s *set) newCase(t *testing.T) *testCase {
	s.cases++
	mine := *s
	mine.Fixture = s.For(t)
	l := &testCase{set: &mine, objects: 1, t: t, name: fmt.Sprintf("case-%d", s.cases)}
	l.path = s.Path(l.name + "/fs") // two directories to create, and that of the test
	t.Cleanup(func() {
		if t.Failed() {
			l.logCalls()
			l.cleanUp()
		}
	})
	l.forget(t)
	return l
}

// start runs a daemon that is killed at a boundary, or not if boundary is empty. The
// boundaries that it passes are logged.
func (l *testCase) start(boundary string) *lab.Process {
	l.t.Helper()
	d := l.Launch(lab.Spec{Program: lab.TestBuild, Args: l.flags, Env: []string{
		fixture.FSTypes, "CLIENTMOUNTD_FAILPOINT=" + boundary, "CLIENTMOUNTD_FAILPOINT_LOG=" + l.passed(len(l.daemons)),
	}})
	l.daemons = append(l.daemons, d)
	return d
}

func (l *testCase) passed(daemon int) string {
	return fmt.Sprintf("%s.%s.passed-%d", l.Runtime, l.name, daemon)
}

// boundaries returns the boundaries that the newest daemon has passed.
func (l *testCase) boundaries() []string {
	l.t.Helper()
	data, err := os.ReadFile(l.passed(len(l.daemons) - 1))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// attempts returns the number of attempts of the newest daemon.
func (l *testCase) attempts() (n int) {
	for _, b := range l.boundaries() {
		if strings.HasPrefix(b, "reconcile/start") {
			n++
		}
	}
	return n
}

// dies waits until the newest daemon is killed at its boundary.
func (l *testCase) dies() {
	l.t.Helper()
	code, err := l.daemons[len(l.daemons)-1].Wait(l.Context(patience))
	if err != nil || code != killed {
		l.t.Fatalf("the boundary was not reached: exit code %d, %v; passed: %v", code, err, l.boundaries())
	}
}

// diesOr waits until the newest daemon is killed at its boundary or the object matches,
// whichever is first. After that no daemon runs.
func (l *testCase) diesOr(fits func(lab.Object) bool) {
	d := l.daemons[len(l.daemons)-1]
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	go func() {
		select {
		case <-d.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	_, _ = l.Cluster.WaitFor(ctx, "ClientMount", l.Node, l.name, fits)
	l.kill()
}

// kill kills the newest daemon with SIGKILL.
func (l *testCase) kill() { l.daemons[len(l.daemons)-1].Kill9() }

// stop stops the newest daemon with SIGTERM.
func (l *testCase) stop() {
	l.t.Helper()
	d := l.daemons[len(l.daemons)-1]
	// Before it is ready it may not handle signals yet.
	l.Ready(d)
	l.Stop(d)
}

// create creates the object.
func (l *testCase) create() {
	l.t.Helper()
	m := l.kind.mount
	m.Path = l.path
	l.Mount(l.name, m)
}

// remove deletes the object, which stays until our finalizer is removed.
func (l *testCase) remove() {
	l.t.Helper()
	l.Remove(l.name)
}

// await waits until the object matches.
func (l *testCase) await(fits func(lab.Object) bool) {
	l.t.Helper()
	if now, err := l.Cluster.WaitFor(l.Context(patience), "ClientMount", l.Node, l.name, fits); err != nil {
		l.t.Fatalf("the goal is not reached: %v; status %v", err, now["status"])
	}
}

// move changes the path of the mount.
func (l *testCase) move() {
	l.t.Helper()
	now, err := l.Cluster.Get(l.Context(patience), "ClientMount", l.Node, l.name)
	l.Must(err)
	l.path = l.Path(l.name + "/elsewhere")
	mounts := now.At("spec", "mounts").([]any)
	mounts[0].(map[string]any)["mountPath"] = l.path
	if _, err := l.Cluster.Patch(l.Context(patience), "ClientMount", l.Node, l.name, lab.Object{"spec": map[string]any{"mounts": mounts}}); err != nil {
		l.t.Fatal(err)
	}
}

// settled waits until the newest daemon has finished its work on mounted objects. The
// status of the objects may be from before the crash.
func (l *testCase) settled() {
	l.t.Helper()
	l.settledAs(l.objects, l.objects)
}

// settledAs waits until the daemon reports that many mounts and objects, and no work.
func (l *testCase) settledAs(mounts, objects int) {
	l.t.Helper()
	s := func(n int) string { return strings.Repeat("s", min(n-1, 1)) }
	text := fmt.Sprintf("STATUS=%d mount%s ready for %d ClientMount%s;", mounts, s(mounts), objects, s(objects))
	if _, err := l.daemons[len(l.daemons)-1].WaitNoticeText(l.Context(patience), text); err != nil {
		l.t.Fatalf("the daemon does not settle: %v; passed %v", err, l.boundaries())
	}
}

// mountedOnce checks that the mount table has our file system once at the path, and no
// other new mount.
func (l *testCase) mountedOnce() {
	l.t.Helper()
	mounts, err := l.Mounts()
	l.Must(err)
	if len(mounts) != 1 || mounts[0].Target != l.path {
		l.t.Fatalf("want one mount at %s, have %+v", l.path, mounts)
	}
	if l.kind.name != "raw" && mounts[0].Type != l.kind.fstype {
		l.t.Errorf("mounted is %+v", mounts[0])
	}
	if l.kind.mount.Own {
		var st unix.Stat_t
		if err := unix.Stat(l.path, &st); err != nil || int(st.Uid) != l.kind.mount.UID || int(st.Gid) != l.kind.mount.GID {
			l.t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
		}
	}
}

func (l *testCase) nothingMounted() {
	l.t.Helper()
	mounts, err := l.Mounts()
	if err != nil || len(mounts) > 0 {
		l.t.Errorf("still mounted: %+v %v", mounts, err)
	}
}

// end unmounts and deletes the object with the running daemon, stops it, and checks that
// nothing is left.
func (l *testCase) end() {
	l.t.Helper()
	l.Want(l.name, "unmounted")
	l.await(isUnmounted)
	l.remove()
	l.await(isGone)
	l.over()
}

// over stops the daemon and checks that nothing of the case is left.
func (l *testCase) over() {
	l.t.Helper()
	l.stop()
	l.NothingLeft()
	records, err := os.ReadDir(filepath.Join(l.Runtime, "mounts"))
	if err != nil {
		l.t.Error(err)
	}
	for _, r := range records {
		l.t.Errorf("record left behind: %s", r.Name())
	}
	_ = filepath.WalkDir(l.Base, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			l.t.Errorf("left behind: %s", path)
		}
		return nil
	})
}

// logCalls writes the calls of the fake tools to the test's log.
func (l *testCase) logCalls() {
	calls, _ := l.Log()
	for _, c := range calls {
		l.t.Logf("%s %s: exit %d", c.Tool, strings.Join(c.Argv, " "), c.Exit)
	}
}

// cleanUp removes what a failed case has left, so that the next one is not affected.
func (l *testCase) cleanUp() {
	mounts, _ := l.Mounts()
	for i := len(mounts) - 1; i >= 0; i-- {
		_ = unix.Unmount(mounts[i].Target, unix.MNT_DETACH)
	}
	_ = l.Reboot()
	_ = os.RemoveAll(l.Runtime)
	_ = os.RemoveAll(l.Base)
	ctx, cancel := context.WithTimeout(context.Background(), patience) // that of the test is cancelled
	defer cancel()
	for _, name := range []string{l.name, l.second().name} {
		_ = l.Cluster.DropFinalizers(ctx, "ClientMount", l.Node, name)
		_ = l.Cluster.Delete(ctx, "ClientMount", l.Node, name)
	}
	_ = l.ClearFaults()
}
