package main

import (
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// node is one with a volume and a profile of its own.
type node struct{ *world.World }

func (b *bench) node() node {
	n := node{world.On(b.tb, b.Lab, b.cluster)}
	n.UseProfile(world.ProfileSpec{})
	n.Volume(0, lab.VolumeOptions{})
	return n
}

// path is where the node's only volume is mounted.
func (n node) path() string { return n.Path("m") }

// ask creates a ClientMount that wants to be mounted.
func (n node) ask(name string) { n.Mount(name, world.MountSpec{Path: n.path(), Type: "xfs"}) }

// mount is ask, and waits until it is.
func (n node) mount(name string) { n.ask(name); n.Await(name, "mounted") }

// remove brings a ClientMount to its end.
func (n node) remove(name string) {
	n.Unmount(name)
	n.Delete(name)
}

// start measures exec to READY against the API server itself, then counts what
// a start asks of it, through a proxy.
func (b *bench) start() {
	n := b.node()
	var ready []float64
	for range b.starts {
		d := n.Launch(lab.Spec{})
		ready = append(ready, milliseconds(n.Ready(d)))
		n.Stop(d)
	}
	b.add("exec to READY=1", "ms", 30, false, ready, "from before fork until the service manager has it; API server on loopback")
	p := n.UseProxy()
	d := n.Start()
	_, err := p.WaitRequest(b.tb.Context(), func(r *lab.Request) bool { return r.Class == lab.ClassWatch })
	b.must(err)
	// A request that came late would be counted at the next mount, so give it
	// the time of one.
	atReady := slices.Clone(p.Requests())
	n.mount("after-start")
	b.add("requests at start", "", 3, true, []float64{float64(len(atReady))}, "until READY and the watch, counted by a proxy")
	b.add("watches", "", 1, true, []float64{float64(p.Count(lab.ClassWatch))}, "until after the first mount")
	n.remove("after-start")
	n.Stop(d)
}

// lives runs ClientMounts from creation to deletion one after another. The
// time in between the daemon's commands and requests comes from its own debug
// log, which is part of that time. The daemon is left running.
func (b *bench) lives() *subject {
	n := b.node()
	p := n.UseProxy()
	d := n.Start("--log-level=debug")
	var writes, overhead, latency, reads []float64
	for i := range b.runs + 1 {
		name := fmt.Sprintf("life-%d", i)
		p.ClearRequests()
		began := time.Now()
		n.ask(name)
		line, err := d.WaitLog(n.Context(time.Minute), func(l lab.LogLine) bool {
			return l.Fields["msg"] == "ClientMount is mounted" && l.Fields["clientmount"] == name
		})
		b.must(err)
		n.Await(name, "mounted")
		n.remove(name)
		text, _ := line.Fields["overhead"].(string)
		own, err := time.ParseDuration(text)
		if err != nil {
			b.tb.Fatalf("the daemon's log says no overhead: %s", line.Text)
		}
		writes = append(writes, float64(p.Count(lab.ClassCreate, lab.ClassUpdate, lab.ClassDelete, lab.ClassPatchObject, lab.ClassPatchStatus)))
		if i > 0 { // the first one finds nothing warm
			reads = append(reads, float64(p.Count(lab.ClassGet, lab.ClassList, lab.ClassWatch, lab.ClassOther)))
			overhead = append(overhead, milliseconds(own))
			latency = append(latency, milliseconds(line.Time.Sub(began)))
		}
	}
	b.add("writes per ClientMount life", "", 4, true, writes, "mount, unmount, delete; counted by a proxy")
	b.add("reads per ClientMount life", "", 2, true, reads, "the storage profile at mount and at unmount; besides the served version, once per process")
	b.add("own overhead per mount", "ms", 2, false, overhead, "the attempt without its commands' and requests' time, debug log on")
	b.add("mount latency, p50", "ms", noTarget, false, latency, "create sent until status written, stand-in LVM, real mount(8)")
	b.add("mount latency, p99", "ms", noTarget, false, []float64{quantile(latency, 0.99)}, "the same")
	return &subject{about: clientmountd, what: "used daemon", daemon: d, how: fmt.Sprintf("after %d lives, none mounted, debug log on", b.runs+1)}
}

// holders measures from the end of umount(8), which says "busy", until the
// daemon has named who is in the way.
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
		{lab.HoldOpen, "holder found, open file", fmt.Sprintf("umount's end until the daemon's log line, %d processes, the search goes through all of them", b.processes), 200},
		{lab.HoldMmap, "holder found, only mapped", "the same; mappings cost the kernel most and are looked at last", noTarget},
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
		b.tb.Fatalf("the holder is process %d, the daemon says: %s", h.PID, line.Text)
	}
	call, err := n.WaitCall(ctx, func(c lab.Call) bool { return c.Tool == "umount" && c.Exit == 32 })
	b.must(err)
	b.must(h.Release())
	n.remove(name)
	return milliseconds(line.Time.Sub(call.End))
}

// sleepers makes many processes that sleep, as cheap as the system has them: forks
// of one shell. They end when their standard input does.
func sleepers(l *lab.Lab, n int) (release func() error, err error) {
	cmd := exec.Command("sh", "-c", `exec 3<&0; i=0; while [ $i -lt `+fmt.Sprint(n)+` ]; do (read -r _ <&3) & i=$((i+1)); done; echo ready; wait`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return l.Hold(cmd)
}
