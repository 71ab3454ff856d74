// Command demo shows the daemons at work. It starts a real API server, creates a
// ClientMount, uses the mounted file system, and unmounts it, first in vain because
// it is busy. It shows the state of the mount and the time of each step. Then a job copies a directory tree from its storage to a global file
// system and cancels a second copy. At the end the demo checks that nothing is left.
//
// As root it mounts a real xfs from a loop device. As an unprivileged user it runs in
// a user namespace and mounts a tmpfs instead. It uses a private mount namespace.
// Exit codes: 0, 1 for a failure, 130 after Ctrl-C.
//
// It must not depend on the internals of the daemons: it shows their output.
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

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func main() {
	os.Exit(run(lab.Enter()))
}

// run runs the demo and returns the exit code.
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

// show creates the lab, runs both parts in it and checks that nothing is left.
func show(ctx context.Context, out *screen, f lab.Features) (err error) {
	began := time.Now()
	out.title("clientmountd: from a ClientMount object to a mounted file system and back")
	if f.UserNamespace {
		out.note("Without root: a tmpfs in a user namespace replaces the xfs on a device. The daemon is the test build,")
		out.note("because the release build accepts only a real xfs. Everything else is the same.")
	} else {
		out.note("As root: a real xfs on a loop device, mounted by the release build of the daemon. Without root: a tmpfs.")
	}
	out.note("Fake: lvs, vgs, lvchange. Real: the API server, mount, umount, the kernel.")
	out.note("Lines with kubectl show what you would type on a cluster; the demo sends the same requests itself.")
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
	if err := lab.Do(ctx, func(tb lab.TB) { d.run(tb, fixture.On(tb, l, cluster)) }); err != nil {
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
