package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// node is a compute node with its own volume and profile.
type node struct{ *fixture.Fixture }

func (b *bench) node() node {
	n := node{fixture.On(b.tb, b.Lab, b.cluster)}
	n.UseProfile(fixture.ProfileSpec{})
	n.Volume(0, lab.VolumeOptions{})
	return n
}

// path returns the mount point of the volume.
func (n node) path() string { return n.Path("m") }

// create creates a ClientMount with the desired state mounted.
func (n node) create(name string) { n.Mount(name, fixture.MountSpec{Path: n.path(), Type: "xfs"}) }

// mount creates a ClientMount and waits until it is mounted.
func (n node) mount(name string) { n.create(name); n.Await(name, "mounted") }

// remove unmounts and deletes a ClientMount.
func (n node) remove(name string) {
	n.Unmount(name)
	n.Delete(name)
}

// tokenLife is the life of the tokens of nodes that nnf-deploy installs.
const tokenLife = 7 * 24 * time.Hour

// startWithToken starts the daemon with a token of an account of this node only, and waits until it
// reports when it renews the token.
func (n node) startWithToken() *lab.Process {
	n.Namespace(n.Rabbit)
	for _, o := range n.NodeObjects(fixture.SystemConfiguration(n.System, []any{fixture.StorageNode(n.Rabbit, n.Node)})) {
		// Without the policies, because the server would check them for the writes of all figures.
		if !strings.HasPrefix(o.String("kind"), "ValidatingAdmissionPolicy") {
			n.ApplyStrict(o)
		}
	}
	token := []byte(n.NodeToken(string(clientmountd), n.Node, tokenLife))
	n.Token = n.Write("token", token)
	client := n.Client(token)
	n.Must(wait.For(n.Context(n.Patience), "the role of the account", func() (bool, error) {
		_, err := client.Do(n.Context(n.Patience), http.MethodGet, lab.Path("ClientMount", n.Node, ""), "", nil)
		return err == nil, nil
	}))
	d := n.Start()
	n.Must(wait.For(n.Context(n.Patience), "the time of the renewal", func() (bool, error) {
		var state struct {
			Token struct{ Identity, Renewal string }
		}
		data, err := os.ReadFile(filepath.Join(n.Runtime, "daemon.json"))
		return err == nil && json.Unmarshal(data, &state) == nil && state.Token.Identity == "per-node" && state.Token.Renewal != "", nil
	}))
	return d
}

// start measures the time from exec to READY, connected to the API server directly, and the time
// to stop, without and with a mount. It then counts the requests of a start, through a proxy.
func (b *bench) start() {
	n := b.node()
	ready, stopped := b.restarts(n)
	b.add("exec to READY=1", "ms", 30, false, ready, "from before fork until the service manager has received it; API server on loopback")
	b.add("SIGTERM to exit", "ms", 30, false, stopped, "of a daemon that is ready and has nothing to do")
	d := n.Start()
	n.mount("job")
	n.Stop(d)
	ready, stopped = b.restarts(n)
	b.add("exec to READY=1, during a job", "ms", 30, false, ready, "as above, with a mounted file system")
	b.add("SIGTERM to exit, during a job", "ms", 30, false, stopped, "as above, with a mounted file system, which stays mounted")
	d = n.Start()
	n.remove("job")
	n.Stop(d)
	b.startRequests(n)
}

// restarts starts and stops the daemon. It returns the times from exec to READY, and those from
// SIGTERM to the exit.
func (b *bench) restarts(n node) (ready, stopped []float64) {
	for range b.starts {
		d := n.Launch(lab.Spec{})
		ready = append(ready, milliseconds(n.Ready(d)))
		began := time.Now()
		n.Stop(d)
		stopped = append(stopped, milliseconds(time.Since(began)))
	}
	return ready, stopped
}

// startRequests counts the requests of a start, through a proxy.
func (b *bench) startRequests(n node) {
	p := n.UseProxy()
	d := n.Start()
	_, err := p.WaitRequest(b.tb.Context(), func(r *lab.Request) bool { return r.Class == lab.ClassWatch })
	b.must(err)
	// Wait for the duration of a mount, because a late request would be counted with
	// the next mount.
	atReady := slices.Clone(p.Requests())
	n.mount("after-start")
	b.add("requests at start", "", 2, true, []float64{float64(len(atReady))}, "until READY and the watch, counted by a proxy")
	b.add("watches", "", 1, true, []float64{float64(p.Count(lab.ClassWatch))}, "until after the first mount")
	n.remove("after-start")
	n.Stop(d)
}

// lives runs ClientMounts from creation to deletion, one after another. The overhead of
// the daemon, without its commands and requests, is from its debug log, and includes the
// logging. The daemon keeps running.
func (b *bench) lives() *subject {
	n := b.node()
	p := n.UseProxy()
	d := n.Start("--log-level=debug")
	var writes, overhead, latency, reads []float64
	for i := range b.runs + 1 {
		name := fmt.Sprintf("life-%d", i)
		p.ClearRequests()
		began := time.Now()
		n.create(name)
		line, err := d.WaitLog(n.Context(time.Minute), func(l lab.LogLine) bool {
			return l.Fields["msg"] == "ClientMount is mounted" && l.Fields["clientmount"] == name
		})
		b.must(err)
		n.Await(name, "mounted")
		n.remove(name)
		text, _ := line.Fields["overhead"].(string)
		own, err := time.ParseDuration(text)
		if err != nil {
			b.tb.Fatalf("the log of the daemon has no overhead: %s", line.Text)
		}
		writes = append(writes, float64(p.Count(lab.ClassCreate, lab.ClassUpdate, lab.ClassDelete, lab.ClassPatchObject, lab.ClassPatchStatus)))
		if i > 0 { // the first one has cold caches
			reads = append(reads, float64(p.Count(lab.ClassGet, lab.ClassList, lab.ClassWatch, lab.ClassOther)))
			overhead = append(overhead, milliseconds(own))
			latency = append(latency, milliseconds(line.Time.Sub(began)))
		}
	}
	b.add("writes per ClientMount life", "", 4, true, writes, "mount, unmount, delete; counted by a proxy")
	b.add("reads per ClientMount life", "", 2, true, reads, "the storage profile at mount and unmount; without the served version, once per process")
	b.add("own overhead per mount", "ms", 2, false, overhead, "the attempt without the time of commands and requests, debug log on")
	b.add("mount latency, p50", "ms", noTarget, false, latency, "from sending the create until the status is written; fake LVM, real mount(8)")
	b.add("mount latency, p99", "ms", noTarget, false, []float64{figures.Quantile(latency, 0.99)}, "as above")
	return &subject{about: clientmountd, what: "used daemon", daemon: d, how: fmt.Sprintf("after %d ClientMounts, none mounted, debug log on", b.runs+1)}
}

// holders measures the time from the end of umount(8), which fails with "busy", until the
// daemon has logged the holder.
func (b *bench) holders() {
	n := b.node()
	release, err := sleepers(n.Lab, b.processes)
	b.must(err)
	defer func() { _ = release() }()
	d := n.Start()
	const rounds = 5
	for _, c := range []struct {
		kind, name, how string
		target          float64
	}{
		{lab.HoldOpen, "holder found, open file", fmt.Sprintf("from the end of umount until the log record; all of %d processes are searched", b.processes), 200},
		{lab.HoldMmap, "holder found, only mapped", "as above; mappings are the most expensive and are searched last", noTarget},
	} {
		var took []float64
		for i := range rounds {
			took = append(took, b.search(n, d, fmt.Sprintf("busy-%s-%d", c.kind, i), c.kind))
		}
		b.add(c.name, "ms", c.target, false, took, c.how)
	}
	n.Stop(d)
	b.must(release())
}

func (b *bench) search(n node, d *lab.Process, name, kind string) float64 {
	n.mount(name)
	h, err := n.Busy(kind, n.path())
	b.must(err)
	b.must(n.ClearLog())
	n.Want(name, "unmounted")
	ctx := n.Context(30 * time.Second)
	line, err := d.WaitLog(ctx, func(l lab.LogLine) bool {
		return l.Fields["msg"] == "mount is in use" && l.Fields["clientmount"] == name
	})
	b.must(err)
	if pid, _ := line.Fields["holder_pid"].(float64); int(pid) != h.PID {
		b.tb.Fatalf("the holder is process %d, the daemon logged: %s", h.PID, line.Text)
	}
	call, err := n.WaitCall(ctx, func(c lab.Call) bool { return c.Tool == "umount" && c.Exit == 32 })
	b.must(err)
	b.must(h.Release())
	n.remove(name)
	return milliseconds(line.Time.Sub(call.End))
}

// sleepers starts many sleeping processes. They are forks of one shell, to save memory.
// They exit at the end of their standard input.
func sleepers(l *lab.Lab, n int) (release func() error, err error) {
	cmd := exec.Command("sh", "-c", `exec 3<&0; i=0; while [ $i -lt `+fmt.Sprint(n)+` ]; do (read -r _ <&3) & i=$((i+1)); done; echo ready; wait`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return l.Hold(cmd)
}
