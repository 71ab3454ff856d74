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

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// patience bounds what should take milliseconds.
const patience = 40 * time.Second

// killed is the exit code of who died by SIGKILL.
const killed = 128 + 9

// life is one case: one ClientMount from its birth to its end, or two that share
// a mount.
type life struct {
	*set
	objects int // that the next daemon finds
	t       *testing.T
	name    string
	path    string
	daemons []*lab.Process
	flags   []string
}

func (s *set) life(t *testing.T) *life {
	s.cases++
	mine := *s
	mine.World = s.For(t)
	l := &life{set: &mine, objects: 1, t: t, name: fmt.Sprintf("case-%d", s.cases)}
	l.path = s.Path(l.name + "/fs") // two directories to be made, and the test's own
	t.Cleanup(func() {
		if t.Failed() {
			l.logCalls()
			l.cleanUp()
		}
	})
	l.forget(t)
	return l
}

// start runs a daemon that dies at a boundary, or continues when it is empty, and
// notes the boundaries that it passes.
func (l *life) start(boundary string) *lab.Process {
	l.t.Helper()
	d := l.Launch(lab.Spec{Program: lab.TestBuild, Args: l.flags, Env: []string{
		world.FSTypes, "CLIENTMOUNTD_FAILPOINT=" + boundary, "CLIENTMOUNTD_FAILPOINT_LOG=" + l.passed(len(l.daemons)),
	}})
	l.daemons = append(l.daemons, d)
	return d
}

func (l *life) passed(daemon int) string {
	return fmt.Sprintf("%s.%s.passed-%d", l.Runtime, l.name, daemon)
}

// boundaries are those that the newest daemon has passed.
func (l *life) boundaries() []string {
	l.t.Helper()
	data, err := os.ReadFile(l.passed(len(l.daemons) - 1))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// attempts counts how often the newest daemon began to work on an object.
func (l *life) attempts() (n int) {
	for _, b := range l.boundaries() {
		if strings.HasPrefix(b, "reconcile/begin") {
			n++
		}
	}
	return n
}

// dies waits for the death of the newest daemon at its boundary.
func (l *life) dies() {
	l.t.Helper()
	code, err := l.daemons[len(l.daemons)-1].Wait(l.Context(patience))
	if err != nil || code != killed {
		l.t.Fatalf("the boundary was not met: exit code %d, %v; passed: %v", code, err, l.boundaries())
	}
}

// diesOr waits until the newest daemon dies at its boundary or the object fits,
// whichever is first, and leaves no daemon.
func (l *life) diesOr(fits func(lab.Object) bool) {
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

// kill kills the newest daemon by SIGKILL.
func (l *life) kill() { l.daemons[len(l.daemons)-1].Kill9() }

// stop lets the newest daemon end in peace.
func (l *life) stop() {
	l.t.Helper()
	d := l.daemons[len(l.daemons)-1]
	// Before it is ready it may not listen to signals yet.
	l.Ready(d)
	l.Stop(d)
}

// create makes the object.
func (l *life) create() {
	l.t.Helper()
	m := l.kind.mount
	m.Path = l.path
	l.Mount(l.name, m)
}

// remove asks for the end of the object; our finalizer keeps it.
func (l *life) remove() {
	l.t.Helper()
	l.Remove(l.name)
}

// await waits until the object fits.
func (l *life) await(fits func(lab.Object) bool) {
	l.t.Helper()
	if now, err := l.Cluster.WaitFor(l.Context(patience), "ClientMount", l.Node, l.name, fits); err != nil {
		l.t.Fatalf("the goal is not reached: %v; status %v", err, now["status"])
	}
}

// move gives the mount another path.
func (l *life) move() {
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

// settled waits until the newest daemon has nothing more to do for objects that
// are mounted. What the status says may be from before the crash.
func (l *life) settled() {
	l.t.Helper()
	l.settledAs(l.objects, l.objects)
}

// settledAs waits until it has so many mounts for so many objects, and no work.
func (l *life) settledAs(mounts, objects int) {
	l.t.Helper()
	s := func(n int) string { return strings.Repeat("s", min(n-1, 1)) }
	text := fmt.Sprintf("STATUS=%d mount%s ready for %d ClientMount%s;", mounts, s(mounts), objects, s(objects))
	if _, err := l.daemons[len(l.daemons)-1].WaitNoticeText(l.Context(patience), text); err != nil {
		l.t.Fatalf("the daemon does not settle: %v; passed %v", err, l.boundaries())
	}
}

// mountedOnce checks the mount table: our file system at the path, and nothing
// else that the lab did not have at its start.
func (l *life) mountedOnce() {
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

func (l *life) nothingMounted() {
	l.t.Helper()
	mounts, err := l.Mounts()
	if err != nil || len(mounts) > 0 {
		l.t.Errorf("still mounted: %+v %v", mounts, err)
	}
}

// end unmounts and deletes by the daemon that runs, stops it, and checks that
// nothing is left.
func (l *life) end() {
	l.t.Helper()
	l.Want(l.name, "unmounted")
	l.await(isUnmounted)
	l.remove()
	l.await(isGone)
	l.over()
}

// over stops the daemon and checks that nothing is left of the life.
func (l *life) over() {
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

// logCalls writes the calls of the stand-ins to the test's log.
func (l *life) logCalls() {
	calls, _ := l.Log()
	for _, c := range calls {
		l.t.Logf("%s %s: exit %d", c.Tool, strings.Join(c.Argv, " "), c.Exit)
	}
}

// cleanUp takes away what a failed case left, so that the next one starts clean.
func (l *life) cleanUp() {
	mounts, _ := l.Mounts()
	for i := len(mounts) - 1; i >= 0; i-- {
		_ = unix.Unmount(mounts[i].Target, unix.MNT_DETACH)
	}
	_ = l.Reboot()
	_ = os.RemoveAll(l.Runtime)
	_ = os.RemoveAll(l.Base)
	ctx, cancel := context.WithTimeout(context.Background(), patience) // that of the test has ended
	defer cancel()
	for _, name := range []string{l.name, l.second().name} {
		_ = l.Cluster.DropFinalizers(ctx, "ClientMount", l.Node, name)
		_ = l.Cluster.Delete(ctx, "ClientMount", l.Node, name)
	}
	_ = l.ClearFaults()
}
