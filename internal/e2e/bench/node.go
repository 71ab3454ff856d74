package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

const profile = "job7-0"

// bench is the scene of all measurements.
type bench struct {
	*lab.Lab
	options
	report
	ctx     context.Context
	cluster *lab.Cluster
	nodes   int
	offload *offload
}

func (b *bench) say(what string) { fmt.Fprintln(os.Stderr, "bench:", what) }

// node is one node with a namespace and a volume of its own.
type node struct {
	*bench
	name, owner, path string
}

func (b *bench) node() (*node, error) {
	b.nodes++
	n := &node{
		bench: b, name: fmt.Sprintf("compute-%d", b.nodes), owner: fmt.Sprintf("2c5d0000-0000-4000-8000-%012d", b.nodes),
		path: filepath.Join(b.MountBase, fmt.Sprint(b.nodes)),
	}
	vg, lv := lab.VolumeNames(n.owner, "0", 0, true)
	if _, err := b.AddVolume(vg, lv, lab.VolumeOptions{}); err != nil {
		return nil, err
	}
	for _, o := range []lab.Object{
		{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": n.name}},
		lab.Profile(profile, lab.ProfileSpec{}),
	} {
		if _, err := b.cluster.Apply(b.ctx, o); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// daemon starts the released build with its default settings and waits for
// READY. Address and certificate are of the API server, or of a proxy.
func (n *node) daemon(address, cert string, flags ...string) (*lab.Daemon, time.Duration, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, 0, err
	}
	d, err := n.StartDaemon(lab.DaemonOptions{Args: append([]string{
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + n.cluster.TokenFile(), "--service-cert-file=" + cert,
		"--node-name=" + n.name, "--runtime-directory=" + filepath.Join(n.Dir, "runtime-"+n.name),
		"--config=/dev/null", "--log-format=json", "--mount-namespace=any",
	}, flags...)})
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, 30*time.Second)
	defer cancel()
	took, err := d.WaitReady(ctx)
	if err != nil {
		d.Kill9()
		return nil, 0, fmt.Errorf("the daemon did not become ready: %w: %v", err, d.Log())
	}
	return d, took, nil
}

// direct starts a daemon that speaks to the API server itself.
func (n *node) direct(flags ...string) (*lab.Daemon, time.Duration, error) {
	return n.daemon(n.cluster.Address(), n.cluster.CertFile(), flags...)
}

// proxied starts one behind a proxy that counts.
func (n *node) proxied(flags ...string) (*lab.Daemon, *lab.Proxy, error) {
	p, err := lab.StartProxy(n.cluster.URL, n.cluster.CA())
	if err != nil {
		return nil, nil, err
	}
	cert := filepath.Join(n.Dir, "proxy-"+n.name+".crt")
	if err := os.WriteFile(cert, p.CA(), 0o600); err != nil {
		return nil, nil, err
	}
	d, _, err := n.daemon(p.Address, cert, flags...)
	return d, p, err
}

// stop ends a daemon the polite way.
func (b *bench) stop(d *lab.Daemon) error {
	if err := d.Term(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if code, err := d.Wait(ctx); code != 0 || err != nil {
		return fmt.Errorf("the daemon ended with code %d: %w", code, err)
	}
	return nil
}

// ask creates a ClientMount that wants to be mounted.
func (n *node) ask(name string) error {
	_, err := n.cluster.Create(n.ctx, lab.ClientMount(name, n.name, lab.ClientMountSpec{
		Profile: profile, OwnerUID: n.owner, Mounts: []lab.MountSpec{{Path: n.path, Type: "xfs"}},
	}))
	return err
}

// want changes the desired state.
func (n *node) want(name, state string) error {
	_, err := n.cluster.Patch(n.ctx, "ClientMount", n.name, name, lab.Object{"spec": map[string]any{"desiredState": state}})
	return err
}

// await waits until the status says so.
func (n *node) await(name string, fits func(lab.Object) bool) error {
	ctx, cancel := context.WithTimeout(n.ctx, 60*time.Second)
	defer cancel()
	o, err := n.cluster.WaitStatus(ctx, n.name, name, fits)
	if err != nil {
		return fmt.Errorf("%s: %w: %v", name, err, o["status"])
	}
	return nil
}

// remove brings a ClientMount to its end.
func (n *node) remove(name string) error {
	if err := n.want(name, "unmounted"); err != nil {
		return err
	}
	if err := n.await(name, func(o lab.Object) bool { return o.Ready("unmounted") }); err != nil {
		return err
	}
	if err := n.cluster.Delete(n.ctx, "ClientMount", n.name, name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(n.ctx, 60*time.Second)
	defer cancel()
	return n.cluster.WaitGone(ctx, "ClientMount", n.name, name)
}

func mounted(o lab.Object) bool { return o.Ready("mounted") }

// pause waits, but not after Ctrl-C.
func (b *bench) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}
