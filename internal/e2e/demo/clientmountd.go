package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// allocation is the index of the one volume, which both parts mount.
const allocation = 3

// demo is one node with one volume, and one ClientMount at a time.
type demo struct {
	*world.World
	tb     lab.TB
	out    *screen
	ctx    context.Context
	daemon *lab.Process
	volume *lab.Volume
	object string // the ClientMount's name
	path   string // where it mounts
	seen   int    // log lines that were shown already
}

func (d *demo) must(err error) {
	d.tb.Helper()
	if err != nil {
		d.tb.Fatal(err)
	}
}

func (d *demo) startCluster(l *lab.Lab) (*lab.Cluster, error) {
	began := time.Now()
	c, err := l.StartCluster(d.ctx, lab.ClusterOptions{})
	if err == nil {
		d.out.good("API server", c.URL+", a real one with etcd, RBAC and tokens, in one process", time.Since(began))
	}
	return c, err
}

func (d *demo) run(tb lab.TB, w *world.World) {
	d.tb, d.World = tb, w
	steps(d.ctx, d.start, d.mount, d.use, d.busy, d.unmount, d.end, d.copies)
}

// steps runs them one after another, until Ctrl-C.
func steps(ctx context.Context, list ...func()) {
	for _, step := range list {
		if ctx.Err() == nil {
			step()
		}
	}
}

// start makes the storage and starts the daemon.
func (d *demo) start() {
	d.UseProfile(world.ProfileSpec{})
	d.volume = d.Volume(allocation, lab.VolumeOptions{})
	standins := ""
	if d.Features.UserNamespace {
		standins = "xfs=tmpfs"
	}
	took := d.startDaemon(standins)
	d.ready("clientmountd", "READY on node "+d.Node, d.daemon, took)
}

// ready shows that a daemon is, and what it costs.
func (d *demo) ready(name, text string, p *lab.Process, took time.Duration) {
	u, err := p.Usage()
	d.must(err)
	d.out.good(name, fmt.Sprintf("%s, %.1f MB of memory (%.1f MB its own)", text, float64(u.RSS)/1e6, float64(u.Anonymous)/1e6), took)
}

// startDaemon starts the released clientmountd, or the test build where one file
// system replaces another.
func (d *demo) startDaemon(standins string) time.Duration {
	spec := lab.Spec{Args: []string{"--log-level=debug"}}
	if standins != "" {
		spec.Program, spec.Env = lab.TestBuild, []string{"CLIENTMOUNTD_TEST_FSTYPES=" + standins}
	}
	d.daemon = d.Launch(spec)
	return d.Ready(d.daemon)
}

// mount creates the ClientMount and shows how it comes true.
func (d *demo) mount() {
	d.object, d.path = "job7-xfs", d.Path("job7-0")
	m := world.MountSpec{Path: d.path, Type: "xfs", Index: allocation, Own: true}
	if !d.Features.UserNamespace {
		m.UID, m.GID = 1000, 1000
	}
	o := world.ClientMount(d.object, d.Node, world.ClientMountSpec{Profile: d.Profile, OwnerUID: d.Owner, Mounts: []world.MountSpec{m}})
	d.out.command("kubectl create -f " + d.object + ".yaml")
	d.out.block(excerpt(o))
	d.skipLog()
	began := time.Now()
	d.Apply(o)
	d.Await(d.object, "mounted")
	d.out.good("mounted", "from the object's creation until its status said so", time.Since(began))
	d.showSteps()
}

// use looks at the mount as a user of the node would.
func (d *demo) use() {
	args := []string{"-o", "TARGET,SOURCE,FSTYPE,OPTIONS", d.path}
	d.out.command("findmnt " + strings.Join(args, " "))
	found, err := exec.CommandContext(d.ctx, "findmnt", args...).Output()
	if err != nil {
		d.tb.Fatal("findmnt does not see the mount: ", err)
	}
	d.out.block(string(found))
	file := d.path + "/hello"
	text := fmt.Sprintf("written by process %d on %s", os.Getpid(), time.Now().Format(time.DateTime))
	d.must(os.WriteFile(file, []byte(text+"\n"), 0o644))
	back, err := os.ReadFile(file)
	if err != nil || string(back) != text+"\n" {
		d.tb.Fatalf("the file reads %q: %v", back, err)
	}
	d.out.command("echo ... > " + file + "; cat " + file)
	d.out.block(string(back))
	o, err := d.Cluster.Get(d.ctx, "ClientMount", d.Node, d.object)
	d.must(err)
	d.out.command("kubectl get clientmount " + d.object + " -o jsonpath={.status}")
	status, err := json.Marshal(o["status"])
	d.must(err)
	d.out.block(string(status))
}

// busy asks for the unmount while a process stands in the way.
func (d *demo) busy() {
	h, err := d.Busy(lab.HoldCWD, d.path)
	d.must(err)
	d.out.command(`kubectl patch clientmount ` + d.object + ` -p '{"spec":{"desiredState":"unmounted"}}'` + "  # while a process stands in there")
	d.skipLog()
	began := time.Now()
	d.Want(d.object, "unmounted")
	o := d.AwaitError(d.object)
	d.out.bad("refused", "status.error, severity "+o.Severity()+":", time.Since(began))
	d.out.block(wrap(o.DebugMessage(), 110))
	d.must(h.Release())
	d.out.note(fmt.Sprintf("Process %d leaves; clientmountd tries again by itself.", h.PID))
}

// unmount waits until the daemon has got it away.
func (d *demo) unmount() {
	began := time.Now()
	d.skipLog()
	d.Await(d.object, "unmounted")
	d.out.good("unmounted", "since then", time.Since(began))
	d.showSteps()
	if m, ok, err := d.MountAt(d.path); err != nil || ok {
		d.tb.Fatalf("the status says unmounted, the kernel says %+v: %v", m, err)
	}
}

// end deletes the object and stops the daemon.
func (d *demo) end() {
	began := time.Now()
	d.Delete(d.object)
	d.out.good("deleted", "the finalizer is off, the object is gone", time.Since(began))
	began = time.Now()
	d.Stop(d.daemon)
	d.out.good("stopped", "SIGTERM, exit code 0", time.Since(began))
}

// nothingLeft looks for what even the lab's end should have removed.
func (d *demo) nothingLeft(l *lab.Lab) error {
	for _, path := range []string{l.Dir, d.volume.Node} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("left behind: %s", path)
		}
	}
	backing, _ := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", d.volume.Loop))
	if d.volume.Image != "" && strings.HasPrefix(string(backing), d.volume.Image) {
		return fmt.Errorf("left behind: loop%d on %s", d.volume.Loop, d.volume.Image)
	}
	return nil
}
