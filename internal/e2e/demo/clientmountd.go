package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// allocation is the index of the one volume, which both parts mount.
const allocation = 3

// demo has one node with one volume, and one ClientMount at a time.
type demo struct {
	*fixture.Fixture
	tb     lab.TB
	out    *screen
	ctx    context.Context
	daemon *lab.Process
	volume *lab.Volume
	object string // name of the ClientMount
	path   string // its mount point
	seen   int    // log lines that have been shown
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
		d.out.good("API server", c.URL+": real, with etcd, RBAC and tokens, in one process", time.Since(began))
	}
	return c, err
}

func (d *demo) run(tb lab.TB, w *fixture.Fixture) {
	d.tb, d.Fixture = tb, w
	steps(d.ctx, d.start, d.mount, d.use, d.busy, d.unmount, d.end, d.copies)
}

// steps runs the steps in sequence, until Ctrl-C.
func steps(ctx context.Context, list ...func()) {
	for _, step := range list {
		if ctx.Err() == nil {
			step()
		}
	}
}

// start creates the storage and starts the daemon.
func (d *demo) start() {
	d.UseProfile(fixture.ProfileSpec{})
	d.volume = d.Volume(allocation, lab.VolumeOptions{})
	fsTypes := ""
	if d.Features.UserNamespace {
		fsTypes = "xfs=tmpfs"
	}
	took := d.startDaemon(fsTypes)
	d.ready("clientmountd", "READY on node "+d.Node, d.daemon, took)
}

// ready shows that a daemon is ready, and how much memory it uses.
func (d *demo) ready(name, text string, p *lab.Process, took time.Duration) {
	u, err := p.Usage()
	d.must(err)
	d.out.good(name, fmt.Sprintf("%s, %.1f MB resident memory (%.1f MB of it anonymous)", text, float64(u.RSS)/1e6, float64(u.Anonymous)/1e6), took)
}

// startDaemon starts the released clientmountd. If fsTypes is not empty, it starts the
// test build, which mounts other file system types as fsTypes specifies.
func (d *demo) startDaemon(fsTypes string) time.Duration {
	spec := lab.Spec{Args: []string{"--log-level=debug"}}
	if fsTypes != "" {
		spec.Program, spec.Env = lab.TestBuild, []string{"CLIENTMOUNTD_TEST_FSTYPES=" + fsTypes}
	}
	d.daemon = d.Launch(spec)
	return d.Ready(d.daemon)
}

// mount creates the ClientMount and shows the steps of the mount.
func (d *demo) mount() {
	d.object, d.path = "job7-xfs", d.Path("job7-0")
	m := fixture.MountSpec{Path: d.path, Type: "xfs", Index: allocation, Own: true}
	if !d.Features.UserNamespace {
		m.UID, m.GID = 1000, 1000
	}
	o := fixture.ClientMount(d.object, d.Node, fixture.ClientMountSpec{Profile: d.Profile, OwnerUID: d.Owner, Mounts: []fixture.MountSpec{m}})
	d.out.command("kubectl create -f " + d.object + ".yaml")
	d.out.block(excerpt(o))
	d.skipLog()
	began := time.Now()
	d.Apply(o)
	d.Await(d.object, "mounted")
	d.out.good("mounted", "from the creation of the object until its status shows the mount", time.Since(began))
	d.showSteps()
}

// use accesses the mount as a user of the node does.
func (d *demo) use() {
	args := []string{"-o", "TARGET,SOURCE,FSTYPE,OPTIONS", d.path}
	d.out.command("findmnt " + strings.Join(args, " "))
	found, err := exec.CommandContext(d.ctx, "findmnt", args...).Output()
	if err != nil {
		d.tb.Fatal("findmnt does not show the mount: ", err)
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
	d.out.command("kubectl get clientmount -n " + d.Node + " " + d.object + " -o jsonpath={.status}")
	status, err := json.Marshal(o["status"])
	d.must(err)
	d.out.block(string(status))
}

// busy requests the unmount while a process uses the mount.
func (d *demo) busy() {
	h, err := d.Busy(lab.HoldCWD, d.path)
	d.must(err)
	d.out.command(`kubectl patch clientmount -n ` + d.Node + ` ` + d.object + ` --type=merge -p '{"spec":{"desiredState":"unmounted"}}'` + "  # while a process uses the mount")
	began := time.Now()
	d.Want(d.object, "unmounted")
	o := d.AwaitError(d.object)
	d.out.bad("failed", "status.error, severity "+o.Severity()+":", time.Since(began))
	d.out.block(text.Wrap(110, "", "", o.DebugMessage()))
	d.report("mounts")
	d.must(h.Release())
	d.out.note(fmt.Sprintf("Process %d exits; clientmountd retries the unmount.", h.PID))
}

// report runs a sub-command of clientmountd that reports about the node, and shows its output.
func (d *demo) report(command string) {
	program, err := lab.Binary("clientmountd")
	d.must(err)
	var out bytes.Buffer
	cmd := exec.CommandContext(d.ctx, program, command, "--config=/dev/null", "--runtime-directory="+d.Runtime)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it does not receive the terminal's Ctrl-C
	if err := d.Run(cmd); err != nil {
		d.tb.Fatalf("clientmountd %s: %v\n%s", command, err, &out)
	}
	d.out.command("clientmountd " + command)
	d.out.block(out.String())
}

// unmount waits until the daemon has unmounted the file system.
func (d *demo) unmount() {
	began := time.Now()
	d.Await(d.object, "unmounted")
	d.out.good("unmounted", "after the process has exited", time.Since(began))
	d.report("timeline")
	if m, ok, err := d.MountAt(d.path); err != nil || ok {
		d.tb.Fatalf("the status shows unmounted, the mount table has %+v: %v", m, err)
	}
}

// end deletes the object and stops the daemon.
func (d *demo) end() {
	began := time.Now()
	d.Delete(d.object)
	d.out.good("deleted", "the finalizer is removed and the object deleted", time.Since(began))
	began = time.Now()
	d.Stop(d.daemon)
	d.out.good("stopped", "SIGTERM, exit code 0", time.Since(began))
}

// nothingLeft returns an error if the lab has left files or loop devices behind.
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
