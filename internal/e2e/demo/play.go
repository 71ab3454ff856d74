package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

const (
	nodeName = "compute-1"
	profile  = "job7-0"
)

// play is the scene: one node, one volume, one ClientMount at a time.
type play struct {
	*lab.Lab
	out     *screen
	ctx     context.Context
	cluster *lab.Cluster
	daemon  *lab.Daemon
	volume  *lab.Volume
	object  string // the ClientMount's name
	path    string // where it mounts
	seen    int    // log lines that were shown already
}

func (p *play) play() error {
	return p.acts(p.raise, p.mount, p.use, p.busy, p.unmount, p.end, p.second, p.close)
}

func (p *play) acts(acts ...func() error) error {
	for _, act := range acts {
		if err := act(); err != nil {
			return err
		}
		if err := p.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// raise brings up the API server, the storage and the daemon.
func (p *play) raise() (err error) {
	began := time.Now()
	if p.cluster, err = p.StartCluster(p.ctx, lab.ClusterOptions{}); err != nil {
		return err
	}
	p.out.good("API server", p.cluster.URL+", a real one with etcd, RBAC and tokens, in one process", time.Since(began))
	for _, o := range []lab.Object{
		{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": nodeName}},
		lab.Profile(profile, lab.ProfileSpec{}),
	} {
		if _, err := p.cluster.Apply(p.ctx, o); err != nil {
			return err
		}
	}
	vg, lv := lab.VolumeNames(lab.OwnerUID, "0", 0, true)
	if p.volume, err = p.AddVolume(vg, lv, lab.VolumeOptions{}); err != nil {
		return err
	}
	stands := ""
	if p.Features.UserNamespace {
		stands = "CLIENTMOUNTD_TEST_FSTYPES=xfs=tmpfs"
	}
	took, err := p.startDaemon(stands)
	if err != nil {
		return err
	}
	u, err := p.daemon.Usage()
	if err != nil {
		return err
	}
	p.out.good("clientmountd", fmt.Sprintf("READY on node %s, %.1f MB of memory (%.1f MB its own)",
		nodeName, float64(u.RSS)/1e6, float64(u.Anonymous)/1e6), took)
	return nil
}

// startDaemon starts the released clientmountd, or the test build where a file
// system stands for another, and waits for READY.
func (p *play) startDaemon(stands string) (time.Duration, error) {
	host, port, err := net.SplitHostPort(p.cluster.Address())
	if err != nil {
		return 0, err
	}
	o := lab.DaemonOptions{Args: []string{
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + p.cluster.TokenFile(), "--service-cert-file=" + p.cluster.CertFile(),
		"--node-name=" + nodeName, "--runtime-directory=" + filepath.Join(p.Dir, "runtime"), "--mount-namespace=any",
		"--config=/dev/null", "--log-format=json", "--log-level=debug",
	}}
	if stands != "" {
		o.Binary, o.Env = os.Getenv("CLIENTMOUNTD_TEST"), []string{stands}
		if o.Binary == "" {
			return 0, errors.New("the test build of clientmountd is needed: make build-test")
		}
	}
	if p.daemon, err = p.StartDaemon(o); err != nil {
		return 0, err
	}
	took, err := p.daemon.WaitReady(p.ctx)
	if err != nil {
		return 0, fmt.Errorf("the daemon did not become ready: %w%s", err, tail(p.daemon))
	}
	return took, nil
}

// mount creates the ClientMount and shows how it comes true.
func (p *play) mount() error {
	p.object, p.path = "job7-xfs", filepath.Join(p.MountBase, "job7-0")
	m := lab.MountSpec{Path: p.path, Type: "xfs", Own: true}
	if !p.Features.UserNamespace {
		m.UID, m.GID = 1000, 1000
	}
	o := lab.ClientMount(p.object, nodeName, lab.ClientMountSpec{Profile: profile, Mounts: []lab.MountSpec{m}})
	p.out.command("kubectl create -f " + p.object + ".yaml")
	p.out.block(excerpt(o))
	p.skipLog()
	began := time.Now()
	if _, err := p.cluster.Create(p.ctx, o); err != nil {
		return err
	}
	if _, err := p.await(func(o lab.Object) bool { return o.Ready("mounted") }); err != nil {
		return err
	}
	p.out.good("mounted", "from the object's creation until its status said so", time.Since(began))
	p.showSteps()
	return nil
}

// use looks at the mount as a user of the node would.
func (p *play) use() error {
	args := []string{"-o", "TARGET,SOURCE,FSTYPE,OPTIONS", p.path}
	p.out.command("findmnt " + strings.Join(args, " "))
	found, err := exec.CommandContext(p.ctx, "findmnt", args...).Output()
	if err != nil {
		return fmt.Errorf("findmnt does not see the mount: %w", err)
	}
	p.out.block(string(found))
	file := filepath.Join(p.path, "hello")
	text := fmt.Sprintf("written by process %d on %s", os.Getpid(), time.Now().Format(time.DateTime))
	if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
		return err
	}
	back, err := os.ReadFile(file)
	if err != nil || string(back) != text+"\n" {
		return fmt.Errorf("the file reads %q: %w", back, err)
	}
	p.out.command("echo ... > " + file + "; cat " + file)
	p.out.block(string(back))
	o, err := p.cluster.Get(p.ctx, "ClientMount", nodeName, p.object)
	if err != nil {
		return err
	}
	p.out.command("kubectl get clientmount " + p.object + " -o jsonpath={.status}")
	p.out.block(line(o["status"]))
	return nil
}

// busy asks for the unmount while a process stands in the way.
func (p *play) busy() error {
	h, err := p.Busy(lab.HoldCWD, p.path)
	if err != nil {
		return err
	}
	p.out.command(`kubectl patch clientmount ` + p.object + ` -p '{"spec":{"desiredState":"unmounted"}}'` + "  # while a process stands in there")
	p.skipLog()
	began := time.Now()
	if err := p.want("unmounted"); err != nil {
		return err
	}
	o, err := p.await(func(o lab.Object) bool { return o.Severity() != "" })
	if err != nil {
		return err
	}
	p.out.bad("refused", "status.error, severity "+o.Severity()+":", time.Since(began))
	p.out.block(wrap(o.DebugMessage(), 110))
	if err := h.Release(); err != nil {
		return err
	}
	p.out.note(fmt.Sprintf("Process %d leaves; clientmountd tries again by itself.", h.PID))
	return nil
}

// unmount waits until the daemon has got it away.
func (p *play) unmount() error {
	began := time.Now()
	p.skipLog()
	if _, err := p.await(func(o lab.Object) bool { return o.Ready("unmounted") }); err != nil {
		return err
	}
	p.out.good("unmounted", "since then", time.Since(began))
	p.showSteps()
	if m, ok, err := p.MountAt(p.path); err != nil || ok {
		return fmt.Errorf("the status says unmounted, the kernel says %+v: %w", m, err)
	}
	return nil
}

// end deletes the object and stops the daemon.
func (p *play) end() error {
	began := time.Now()
	if err := p.remove(); err != nil {
		return err
	}
	p.out.good("deleted", "the finalizer is off, the object is gone", time.Since(began))
	began = time.Now()
	if err := p.stop("clientmountd", p.daemon); err != nil {
		return err
	}
	p.out.good("stopped", "SIGTERM, exit code 0", time.Since(began))
	return nil
}

func (p *play) remove() error {
	if err := p.cluster.Delete(p.ctx, "ClientMount", nodeName, p.object); err != nil {
		return err
	}
	return p.cluster.WaitGone(p.ctx, "ClientMount", nodeName, p.object)
}

func (p *play) stop(name string, d *lab.Daemon) error {
	if err := d.Term(); err != nil {
		return err
	}
	if code, err := d.Wait(p.ctx); code != 0 || err != nil {
		return fmt.Errorf("%s ended with code %d: %w", name, code, err)
	}
	return nil
}

// close stops the API server and looks whether anything is left.
func (p *play) close() error {
	if err := p.cluster.Stop(); err != nil {
		return err
	}
	left, err := p.Leftovers()
	if err == nil && len(left) > 0 {
		err = errors.New("left behind: " + strings.Join(left, "; "))
	}
	return err
}

// nothingLeft looks for what even the laboratory's end should have removed.
func (p *play) nothingLeft() error {
	if _, err := os.Lstat(p.Dir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("left behind: %s", p.Dir)
	}
	if _, err := os.Lstat(p.volume.Node); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("left behind: %s", p.volume.Node)
	}
	backing, _ := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", p.volume.Loop))
	if p.volume.Image != "" && strings.HasPrefix(string(backing), p.volume.Image) {
		return fmt.Errorf("left behind: loop%d on %s", p.volume.Loop, p.volume.Image)
	}
	return nil
}

func (p *play) want(state string) error {
	_, err := p.cluster.Patch(p.ctx, "ClientMount", nodeName, p.object, lab.Object{"spec": map[string]any{"desiredState": state}})
	return err
}

// await waits for the object; when it does not become as it should, the
// daemon's last words come with the error.
func (p *play) await(fits func(lab.Object) bool) (lab.Object, error) {
	ctx, cancel := context.WithTimeout(p.ctx, 40*time.Second)
	defer cancel()
	o, err := p.cluster.WaitStatus(ctx, nodeName, p.object, fits)
	if err != nil && !errors.Is(p.ctx.Err(), context.Canceled) {
		err = fmt.Errorf("%w; the status is %s%s", err, line(o["status"]), tail(p.daemon))
	}
	return o, err
}
