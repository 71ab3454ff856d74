// Command demo shows the daemons at work: a real API server, a ClientMount, a
// file system that gets mounted, written to, found busy and unmounted because
// the object says so; then a job that copies a directory tree from such a file
// system to a global one, and cancels another copy; and nothing left afterwards.
//
// As root it mounts a real xfs from a loop device; as an ordinary user, in a
// user namespace, a memory file system replaces it, and the screen says so.
// All happens in a mount namespace of its own. Exit codes: 0, 1 for a failure,
// 130 after Ctrl-C.
//
// It must not know how the daemons work inside: it shows what they say.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func main() {
	os.Exit(run(lab.Enter()))
}

// run runs the demonstration and reports how it went.
func run(f lab.Features) int {
	out := newScreen(os.Stdout, os.Getenv)
	if !f.Private || !f.UserNamespace && !f.Full() {
		fmt.Fprintln(os.Stderr, "demo: not possible on this machine:", f.Why)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := show(ctx, out, f); err != nil {
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return 130
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// show builds the lab, runs both parts in it and checks that all is as before.
func show(ctx context.Context, out *screen, f lab.Features) (err error) {
	began := time.Now()
	out.title("clientmountd, from a ClientMount object to a mounted file system and back")
	if f.UserNamespace {
		out.note("Without root: in a user namespace a tmpfs stands for xfs on a device, and the daemon is the")
		out.note("test build, which has been told so; the released one refuses anything but xfs. The rest is the same.")
	} else {
		out.note("As root: a real xfs on a loop device, mounted by the released daemon. As an ordinary user a tmpfs stands for it.")
	}
	out.note("Stand-ins: lvs, vgs, lvchange (there is no LVM here). Real: API server, mount, umount, the kernel.")
	out.note("Lines with kubectl say what to type on a cluster; the demo sends the same requests itself.")
	l, err := lab.New("")
	if err != nil {
		return err
	}
	d := &demo{out: out, ctx: ctx}
	defer func() {
		err = errors.Join(err, l.Close())
		if err == nil {
			err = d.nothingLeft(l)
		}
		if err == nil {
			out.good("nothing left", "no mount, no active volume, no loop device, no process, no file", time.Since(began))
		}
	}()
	cluster, err := d.startCluster(l)
	if err != nil {
		return err
	}
	if err := lab.Do(ctx, func(tb lab.TB) { d.run(tb, world.On(tb, l, cluster)) }); err != nil {
		return err
	}
	if err := cluster.Stop(); err != nil {
		return err
	}
	left, err := l.Leftovers()
	if err == nil && len(left) > 0 {
		err = errors.New("left behind: " + strings.Join(left, "; "))
	}
	return err
}
