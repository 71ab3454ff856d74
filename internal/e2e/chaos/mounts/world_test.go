package mounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/chaos"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const (
	// commandTimeout is the time limit of the daemon for one command.
	commandTimeout = 3 * time.Second
	// littlePatience replaces chaos.Patience for a build with a seeded defect, which must be found in time.
	littlePatience = 30 * time.Second
	// request limits the requests of the world itself.
	request = 10 * time.Second
)

// storage is what the mounts of a volume have in common.
type storage struct {
	mount  fixture.MountSpec
	volume *lab.VolumeOptions // nil: Lustre
	owner  string             // volumes with lockspaces have a group of their own
}

// node is one compute node with its volumes, and what the script has done to it.
type node struct {
	*fixture.Fixture
	tb      lab.TB
	volumes map[string]storage
	made    map[string]*lab.Volume

	environment []string // of the daemon
	daemon      *lab.Process
	started     time.Time // of the daemon, or when it was last resumed
	stopped     bool      // by SIGSTOP
	limited     bool      // it has few open files
	excused     bool      // it may exit
	daemons     []*lab.Process

	objects   map[string]*object // that the API server has, by name
	holders   map[string][]*lab.Holder
	foreign   []lab.Mount       // of other programs, in their order
	lost      map[string]bool   // volumes that LVM does not see
	damaged   map[string][]byte // the contents of records before the script has damaged them, by file
	pids      string            // the control group with few processes, or empty
	noProfile bool              // it is deleted
	faulty    bool              // faults that can delay all ClientMounts, since the last "clear"
	lives     int               // objects that the script has created
	changes   int               // of objects by the script
	token     []byte            // of the daemon
	hooks     string            // file in which the hooks of the changed profile write
	dirs      map[string]bool   // directories of other programs
	history   *history
	counts    chaos.Counts
}

// place is a volume and the path at which it is mounted, below the base directory.
type place struct{ volume, path string }

// object is a ClientMount as the script has left it.
type object struct {
	mounts []place
	state  string
}

// newNode creates a node with a proxy, its volumes and its profile. No daemon runs yet.
func newNode(tb lab.TB, base *fixture.Fixture) *node {
	tb.Helper()
	f := base.For(tb)
	f.UseProxy()
	w := &node{
		Fixture: f, tb: tb, objects: map[string]*object{}, holders: map[string][]*lab.Holder{}, dirs: map[string]bool{}, lost: map[string]bool{}, damaged: map[string][]byte{},
	}
	w.hooks = filepath.Join(f.Files, "hooks")
	token, err := os.ReadFile(f.Cluster.TokenFile())
	f.Must(err)
	w.token = token
	f.Token = f.Write("token", token)

	w.counts.Scripts = 1
	w.volumes, w.made = storageOf(f)
	f.Must(f.ClearLog()) // of earlier worlds
	w.profile("create")
	f.Must(os.MkdirAll(f.Runtime, 0o755))
	f.Must(unix.Mount("runtime", f.Runtime, "tmpfs", 0, "size=1m,mode=0755"))
	tb.Cleanup(func() { _ = unix.Unmount(f.Runtime, unix.MNT_DETACH) })
	w.history = watch(w)
	return w
}

// The volumes, which all worlds of a process use one after the other.
var common struct {
	storage map[string]storage
	made    map[string]*lab.Volume
}

// storageOf creates the volumes if they do not exist.
func storageOf(f *fixture.Fixture) (map[string]storage, map[string]*lab.Volume) {
	if common.storage != nil {
		return common.storage, common.made
	}
	const nqn = "nqn.2014-08.org.example:chaos"
	locked := strings.Replace(f.Owner, "2c5d", "2c5e", 1)
	common.storage = map[string]storage{
		"xfs":    {fixture.MountSpec{Type: "xfs", Index: 3, NQN: nqn, NSID: "3"}, &lab.VolumeOptions{NQN: nqn, NSID: 3}, f.Owner},
		"xfs-2":  {fixture.MountSpec{Type: "xfs", Index: 4}, &lab.VolumeOptions{}, f.Owner},
		"probe":  {fixture.MountSpec{Type: "xfs", Index: 5}, &lab.VolumeOptions{}, f.Owner},
		"raw":    {fixture.MountSpec{Type: "none", Index: 1, Own: true, UID: 1234, GID: 2345}, &lab.VolumeOptions{Raw: true}, f.Owner},
		"gfs2":   {fixture.MountSpec{Type: "gfs2", Index: 2}, &lab.VolumeOptions{Shared: true}, locked},
		"lustre": {fixture.MountSpec{Type: "lustre", FSName: "chaosfs", MGS: "10.1.2.3@tcp:10.1.2.4@tcp"}, nil, f.Owner},
	}
	common.made = map[string]*lab.Volume{}
	for name, s := range common.storage {
		if s.volume == nil {
			continue
		}
		vg, lv := fixture.VolumeNames(s.owner, "0", s.mount.Index, true)
		v, err := f.AddVolume(vg, lv, *s.volume)
		f.Must(err)
		common.made[name] = v
	}
	return common.storage, common.made
}

// run plays the script, ends all faults, and checks that everything becomes as it should be.
func (w *node) run(s chaos.Script) {
	defer w.tidy()
	w.start("usual")
	for _, st := range s {
		if verbs[st.Verb].Fault {
			w.counts.Faults++
		} else if st.Verb != "wait" {
			w.counts.Operations++
		}
		w.do(st)
		w.alive()
		w.history.pace(w)
		if w.tb.Failed() || w.history.Failed() {
			break
		}
	}
	w.settle()
}

// do does one step.
func (w *node) do(st chaos.Step) {
	w.history.Note(st.String())
	w.faulty = w.faulty || slices.Contains(disturbing, st.Verb)
	a := append(slices.Clone(st.Args), "", "", "")
	switch st.Verb {
	case "create":
		w.create(a[0], place{a[1], a[2]})
	case "want":
		if o := w.objects[a[0]]; o != nil && w.patch(a[0], lab.Object{"spec": map[string]any{"desiredState": a[1]}}) {
			o.state = a[1]
		}
	case "move":
		if o := w.objects[a[0]]; o != nil {
			w.edit(a[0], append([]place{{o.mounts[0].volume, a[1]}}, o.mounts[1:]...))
		}
	case "add":
		if o := w.objects[a[0]]; o != nil {
			w.edit(a[0], append(slices.Clone(o.mounts), place{a[1], a[2]}))
		}
	case "drop":
		if o := w.objects[a[0]]; o != nil && len(o.mounts) > 1 {
			w.edit(a[0], o.mounts[1:])
		}
	case "delete":
		w.delete(a[0])
	case "strip":
		if w.objects[a[0]] != nil {
			w.history.excuse(a[0])
			w.patch(a[0], lab.Object{"metadata": map[string]any{"finalizers": nil}})
		}
	case "profile":
		w.profile(a[0])
	case "wait":
		time.Sleep(time.Duration(chaos.Number(a[0])) * time.Millisecond) // the step itself
	case "hold":
		if o := w.objects[a[0]]; o != nil {
			path := w.Path(o.mounts[0].path)
			if _, mounted, err := w.MountAt(path); err == nil && mounted {
				if h, err := w.Busy(a[1], path); err == nil { // the mount may have gone
					w.holders[a[0]] = append(w.holders[a[0]], h)
				}
			}
		}
	case "release":
		w.release()
	case "foreign":
		w.mountForeign(a[0])
	case "lose", "return":
		if v := w.made[a[0]]; v != nil && st.Verb == "lose" {
			w.lost[a[0]] = true
			w.history.lose(a[0])
			w.Must(v.Hide(true))
		} else if v != nil {
			w.bringBack(a[0])
		}
	case "deactivate":
		if v := w.made[a[0]]; v != nil {
			w.deactivate(v)
		}
	case "tool":
		w.Must(w.Fault(a[0], harm(a[1], chaos.Number(a[2]))))
	case "kill":
		w.kill()
		w.endCommands() // systemd kills what is left in the control group
	case "kill-alone":
		w.kill()
	case "term":
		if w.daemon != nil && !w.stopped {
			w.terminate()
		}
	case "stop":
		if w.daemon != nil && !w.stopped {
			_ = w.daemon.Signal(unix.SIGSTOP)
			w.stopped = true
		}
	case "cont":
		w.cont()
	case "start":
		if w.daemon == nil {
			w.start(a[0])
		}
	case "network", "answer", "cut", "delay", "server":
		chaos.DoServerFault(w.tb, w.Fixture, st)
	case "runtime":
		w.runtime(a[0])
	case "damage":
		w.damage(a[0])
	case "repair":
		w.repair()
	case "token":
		token := w.token
		if a[0] == "bad" { // like one that another cluster has issued, or that has expired
			token = append(bytes.Clone(token[:len(token)-8]), "xxxxxxxx"...)
		}
		w.Must(os.WriteFile(w.Token, token, 0o600))
	case "pids":
		w.limitProcesses(chaos.Number(a[0]))
	case "probe":
		w.probe()
	case "clear":
		w.clear()
	}
}

// bringBack ends the loss of a volume. If the daemon has released the volume in the meantime, it is
// inactive: on a compute node, the daemon then removes its device with dmsetup. There is no device
// mapper here.
func (w *node) bringBack(name string) {
	if !w.lost[name] {
		return
	}
	delete(w.lost, name)
	v := w.made[name]
	w.Must(v.Hide(false))
	w.deactivate(v)
}

// deactivate deactivates a volume like an administrator. LVM refuses this while a file system on it is
// mounted, but not while its device node is bound.
func (w *node) deactivate(v *lab.Volume) {
	w.Must(w.ClearFaults()) // they are for the daemon
	if active, err := v.Active(); err != nil || active {
		_ = w.Tool("lvchange", "--activate", "n", v.VG+"/"+v.LV)
	}
}

// harm returns the fault of a tool.
func harm(name string, times int) lab.Fault {
	f := lab.Fault{Times: times}
	switch name {
	case "fails", "fails-after":
		f.Exit, f.Stderr, f.After = 5, "chaos: it fails", name == "fails-after"
	case "hangs":
		f.Hang = true
	case "floods":
		f.FloodBytes = 4 << 20
	case "garbage":
		f.Report, f.Stderr, f.Exit = "\x00{[}\xff", "\x1b[31mchaos\x00\xff", 1
	case "slow":
		f.Delay = 1500 * time.Millisecond
	case "killed":
		f.KillSelf = true
	}
	return f
}

// manifest returns a ClientMount.
func (w *node) manifest(name string, o *object) lab.Object {
	spec := fixture.ClientMountSpec{Profile: w.Profile, OwnerUID: w.volumes[o.mounts[0].volume].owner, State: o.state}
	for _, p := range o.mounts {
		m := w.volumes[p.volume].mount
		m.Path = w.Path(p.path)
		spec.Mounts = append(spec.Mounts, m)
	}
	return fixture.ClientMount(name, w.Node, spec)
}

// edit changes the mounts of an object, unless they contradict each other or have several owners.
func (w *node) edit(name string, mounts []place) {
	for i, m := range mounts {
		for _, n := range mounts[:i] {
			if m.volume == n.volume || nested(m, n) || w.volumes[m.volume].owner != w.volumes[n.volume].owner {
				return
			}
		}
	}
	o := *w.objects[name]
	o.mounts = mounts
	w.history.expect(name, mounts)
	if w.patch(name, lab.Object{"spec": map[string]any{"mounts": w.manifest(name, &o).At("spec", "mounts")}}) {
		w.objects[name] = &o
	}
}

// nested reports whether one path is the other, or below it.
func nested(a, b place) bool {
	return strings.HasPrefix(a.path+"/", b.path+"/") || strings.HasPrefix(b.path+"/", a.path+"/")
}

func (w *node) create(name string, p place) {
	if w.objects[name] != nil {
		return
	}
	o := &object{[]place{p}, "mounted"}
	ctx, cancel := context.WithTimeout(w.tb.Context(), request)
	defer cancel()
	w.history.created(name, o.mounts)
	if _, err := w.Cluster.Create(ctx, w.manifest(name, o)); err == nil {
		w.objects[name] = o
		w.lives++
	}
}

// patch changes an object, and reports whether it has.
func (w *node) patch(name string, change lab.Object) bool {
	ctx, cancel := context.WithTimeout(w.tb.Context(), request)
	defer cancel()
	_, err := w.Cluster.Patch(ctx, "ClientMount", w.Node, name, change)
	if err == nil {
		w.changes++
	}
	return err == nil
}

// delete deletes an object. It exists until the daemon has removed its finalizer; the script cannot use
// its name until then.
func (w *node) delete(name string) {
	if w.objects[name] == nil {
		return
	}
	ctx, cancel := context.WithTimeout(w.tb.Context(), request)
	defer cancel()
	if err := w.Cluster.Delete(ctx, "ClientMount", w.Node, name); err == nil || lab.IsNotFound(err) {
		delete(w.objects, name)
	}
}

// profile creates, changes or deletes the storage profile. A change adds hooks.
func (w *node) profile(how string) {
	ctx, cancel := context.WithTimeout(w.tb.Context(), request)
	defer cancel()
	if w.noProfile = how == "delete"; w.noProfile {
		_ = w.Cluster.Delete(ctx, "NnfStorageProfile", "default", w.Profile)
		return
	}
	p := fixture.ProfileSpec{}
	if how == "change" {
		p.Hooks = map[string]fixture.Hooks{}
		for _, kind := range []string{"xfs", "gfs2", "none", "lustre"} {
			p.Hooks[kind] = fixture.Hooks{}
			for _, place := range append(mountHooks, unmountHooks...) {
				p.Hooks[kind][place] = []string{hookLine(place, w.hooks)}
			}
		}
	}
	_, _ = w.Cluster.Apply(ctx, fixture.Profile(w.Profile, p))
}

func (w *node) release() {
	for name, list := range w.holders {
		for _, h := range slices.Backward(list) {
			_ = h.Release() // the daemon may have ended the process
		}
		delete(w.holders, name)
	}
}

// mountForeign mounts like another program, unless something is mounted there.
func (w *node) mountForeign(path string) {
	target := w.Path(path)
	if _, mounted, err := w.MountAt(target); err != nil || mounted {
		return
	}
	for _, dir := range []string{w.Base, filepath.Dir(target), target} {
		if os.Mkdir(dir, 0o755) == nil && dir != w.Base {
			w.dirs[dir] = true
		}
	}
	if unix.Mount(foreignSource, target, "tmpfs", 0, "size=64k") != nil {
		return
	}
	mounts, err := w.Mounts()
	w.Must(err)
	for _, m := range mounts {
		if m.Target == target && m.Source == foreignSource {
			w.foreign = append(w.foreign, m)
			w.history.foreign(m.ID, target)
		}
	}
}

// foreignSource is the source of mounts of other programs.
const foreignSource = "foreign"

// unmountForeign ends the mounts of other programs. Those that a mount of the daemon hides stay.
func (w *node) unmountForeign() {
	var hidden []lab.Mount
	for _, m := range slices.Backward(w.foreign) { // a later one may hide an earlier one
		w.history.forget(m.ID)
		if err := unix.Unmount(m.Target, 0); err != nil {
			hidden = append(hidden, m)
			w.history.foreign(m.ID, m.Target)
		}
	}
	slices.Reverse(hidden)
	if len(hidden) < len(w.foreign) {
		w.removeDirectories()
	}
	w.foreign = hidden
}

// removeDirectories removes the directories of other programs, except for those that are in use. It must
// not be repeated without a reason: the daemon may use an empty directory for its next mount.
func (w *node) removeDirectories() {
	for _, dir := range slices.Backward(slices.Sorted(maps.Keys(w.dirs))) {
		if os.Remove(dir) == nil {
			delete(w.dirs, dir)
		}
	}
}

func (w *node) start(how string) {
	config := []string{"[kubernetes]", "[mount]", fmt.Sprintf("command_timeout = %q", commandTimeout), fmt.Sprintf("hook_timeout = %q", commandTimeout), `retry_max = "2s"`, `orphans = "unmount"`}
	limited := false
	spec := lab.Spec{Program: lab.TestBuild, Env: append([]string{fixture.FSTypes}, w.environment...)}
	switch {
	case strings.HasPrefix(how, "nofile="):
		n := strings.TrimPrefix(how, "nofile=")
		spec.Wrap = []string{"prlimit", "--nofile=" + n + ":" + n}
		limited = true
	case strings.HasPrefix(how, "memory="):
		spec.Env = append(spec.Env, "GOMEMLIMIT="+strings.TrimPrefix(how, "memory="))
	case how == "busy=kill":
		config = append(config, `busy = "kill"`, `busy_grace = "1s"`)
	}
	spec.Args = []string{w.Settings(config...)}
	w.daemon = w.Launch(spec)
	w.daemons = append(w.daemons, w.daemon)
	w.started, w.stopped = time.Now(), false
	w.limited, w.excused = limited, w.excused || limited
}

func (w *node) kill() {
	if w.daemon == nil {
		return
	}
	w.counts.Kills++
	w.daemon.Kill9()
	w.daemon, w.stopped = nil, false
}

// endCommands kills all running calls of tools.
func (w *node) endCommands() {
	calls, err := w.Log()
	w.Must(err)
	for _, c := range calls {
		if c.End.IsZero() && isCall(c) {
			_ = unix.Kill(c.PID, unix.SIGKILL)
		}
	}
}

func (w *node) terminate() {
	chaos.Terminate(w.tb, w.daemon, w.started, w.excused)
	w.daemon = nil
}

func (w *node) cont() {
	if w.daemon != nil && w.stopped {
		_ = w.daemon.Signal(unix.SIGCONT)
		w.started, w.stopped = time.Now(), false
	}
}

// alive starts a daemon again that has exited, like systemd. It may exit only when it cannot work.
func (w *node) alive() {
	if w.daemon == nil {
		return
	}
	select {
	case <-w.daemon.Done():
		code, err := w.daemon.Wait(w.tb.Context())
		if err != nil || !w.daemon.Starved() && (code > 1 || !w.excused) {
			w.tb.Errorf("the daemon has exited: code %d, %v", code, err)
		}
		w.daemon = nil
		w.start("usual")
	default:
	}
}

func (w *node) runtime(how string) {
	w.excused = w.excused || how != "usual" // a daemon that starts now cannot work
	chaos.LimitDirectory(w.tb, w.Runtime, "1m", how)
}

// clear ends the faults of tools, connections and the runtime directory.
func (w *node) clear() {
	w.Must(w.ClearFaults())
	w.Proxy.Clear()
	w.Must(w.Proxy.Accept())
	w.runtime("usual")
	w.Must(os.WriteFile(w.Token, w.token, 0o600))
	w.limitProcesses(0)
}

// damage changes the first record that is not damaged yet.
func (w *node) damage(how string) {
	names, err := filepath.Glob(filepath.Join(w.Runtime, "mounts", "*.json"))
	w.Must(err)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if _, is := w.damaged[name]; is || err != nil {
			continue
		}
		temporary := name + ".chaos"
		if how == "link" {
			err = os.Symlink("nowhere", temporary)
		} else {
			err = os.WriteFile(temporary, damagedBy(how, data), 0o600)
		}
		if err == nil && os.Rename(temporary, name) == nil {
			w.damaged[name] = data
		}
		_ = os.Remove(temporary) // the directory may be full
		return
	}
}

// damagedBy returns a damaged record.
func damagedBy(how string, record []byte) []byte {
	switch how {
	case "half":
		return record[:len(record)/2]
	case "text":
		return []byte("not a record")
	}
	return nil
}

// repair restores damaged records that the daemon has not replaced. The daemon changes nothing of their
// objects until then, so they still are true.
func (w *node) repair() {
	for name, record := range w.damaged {
		now, err := os.ReadFile(name)
		st, lerr := os.Lstat(name)
		link := lerr == nil && st.Mode()&os.ModeSymlink != 0
		if link || err == nil && !json.Valid(now) {
			if err = os.WriteFile(name+".chaos", record, 0o600); err == nil {
				err = os.Rename(name+".chaos", name)
			}
			if err != nil { // the directory may be full or read-only
				_ = os.Remove(name + ".chaos")
				continue
			}
		}
		delete(w.damaged, name)
	}
}

// pidsController is the directory of the control groups that limit processes.
const pidsController = "/sys/fs/cgroup/pids"

// limitProcesses limits the processes and threads of the daemon and its commands to a few more than
// there are. 0 ends that.
func (w *node) limitProcesses(more int) {
	if more == 0 {
		if w.pids != "" {
			w.Must(os.WriteFile(filepath.Join(w.pids, "pids.max"), []byte("max"), 0o600))
		}
		return
	}
	if w.daemon == nil {
		return
	}
	if w.pids == "" {
		dir := filepath.Join(pidsController, filepath.Base(w.Dir))
		if err := os.Mkdir(dir, 0o755); err != nil {
			w.history.Note("no limit of processes: " + err.Error())
			return
		}
		w.pids = dir
	}
	if os.WriteFile(filepath.Join(w.pids, "cgroup.procs"), []byte(strconv.Itoa(w.daemon.PID)), 0o600) != nil {
		return // it has exited
	}
	now, err := os.ReadFile(filepath.Join(w.pids, "pids.current"))
	w.Must(err)
	w.Must(os.WriteFile(filepath.Join(w.pids, "pids.max"), []byte(strconv.Itoa(chaos.Number(strings.TrimSpace(string(now)))+more)), 0o600))
	w.daemon.Starve() // the Go runtime cannot continue without a thread that it needs
}

// forgetPids ends the processes in the control group, and removes it.
func (w *node) forgetPids() {
	if w.pids == "" {
		return
	}
	ctx, cancel := context.WithTimeout(w.tb.Context(), chaos.Patience)
	defer cancel()
	for {
		left, err := os.ReadFile(filepath.Join(w.pids, "cgroup.procs"))
		w.Must(err)
		for pid := range strings.FieldsSeq(string(left)) {
			_ = unix.Kill(chaos.Number(pid), unix.SIGKILL)
		}
		if err = unix.Rmdir(w.pids); err == nil {
			return
		}
		if kube.Pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			w.tb.Fatalf("%s: %v; processes %q", w.pids, err, left)
		}
	}
}

// served limits the time for a ClientMount beside others that hang, on a busy machine.
const served = 10 * time.Second

// disturbing are the faults that can delay all ClientMounts.
var disturbing = []string{"tool", "kill", "kill-alone", "term", "stop", "network", "answer", "cut", "delay", "server", "runtime", "token", "pids"}

// probeName is the name of the object, volume and path of a probe.
const probeName = "probe"

// probe mounts and unmounts a ClientMount of its own, which must not wait for others.
func (w *node) probe() {
	if w.faulty || w.noProfile || w.daemon == nil {
		return
	}
	const name = probeName
	began := time.Now()
	w.create(name, place{name, name})
	o := w.objects[name]
	if o == nil {
		w.tb.Fatal("cannot create the object")
	}
	ctx, cancel := context.WithTimeout(w.tb.Context(), chaos.Patience)
	defer cancel()
	for _, o.state = range []string{"mounted", "unmounted"} {
		if w.patch(name, lab.Object{"spec": map[string]any{"desiredState": o.state}}) {
			if now, err := w.Cluster.WaitFor(ctx, "ClientMount", w.Node, name, func(now lab.Object) bool { return now != nil && now.Ready(o.state) }); err != nil {
				w.tb.Fatalf("another ClientMount does not become %s: %v; status %v", o.state, err, now["status"])
			}
		}
	}
	w.delete(name)
	_, err := w.Cluster.WaitFor(ctx, "ClientMount", w.Node, name, func(now lab.Object) bool { return now == nil })
	w.Must(err)
	if took := time.Since(began); took > served {
		w.tb.Errorf("another ClientMount was mounted, unmounted and deleted in %v, not within %v", took, served)
	}
}

// conflicts reports whether another object of the script has another volume at a path of the object, or
// a path above or below it. Which of the two is mounted depends on their order.
func (w *node) conflicts(name string) bool {
	for other, p := range w.objects {
		if other == name {
			continue
		}
		for _, m := range w.objects[name].mounts {
			if slices.ContainsFunc(p.mounts, func(n place) bool { return nested(m, n) && m != n }) {
				return true
			}
		}
	}
	return false
}

// settle ends all faults. Then everything must become as it should be: each object that does not
// conflict with another one, and after their deletion nothing is left.
func (w *node) settle() {
	if w.tb.Failed() || w.history.Failed() {
		return
	}
	w.history.Note("settle")
	w.clear()
	w.repair()
	if len(w.damaged) > 0 {
		w.tb.Fatalf("cannot repair %v", slices.Collect(maps.Keys(w.damaged)))
	}
	w.profile("create")
	w.release()
	w.unmountForeign()
	w.removeDirectories()
	for name := range w.made {
		w.bringBack(name)
	}
	w.endCommands() // those that hang
	w.cont()
	w.alive()
	if w.daemon != nil && w.limited {
		w.terminate()
	}
	w.excused = false
	if w.daemon == nil {
		w.start("usual")
	}
	began, most := time.Now(), chaos.Patience
	if len(w.environment) > 0 {
		most = littlePatience
	}
	ctx, cancel := context.WithTimeout(w.tb.Context(), most)
	defer cancel()
	for name, o := range w.objects {
		if w.conflicts(name) {
			continue
		}
		// What was published before the end of the faults may be true again only later.
		for {
			w.unmountForeign() // a mount of the daemon may have hidden it
			now, err := w.Cluster.Get(ctx, "ClientMount", w.Node, name)
			wrong := "it"
			if err == nil && now.Ready(o.state) {
				wrong, err = w.differs(o)
			}
			if err == nil && (wrong == "" || now.Ready(o.state) && w.shared(name)) {
				break
			}
			if kube.Pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
				w.tb.Errorf("%s does not become %s after the end of all faults: %s is not, %v; status %v", name, o.state, wrong, err, now["status"])
				break
			}
		}
	}
	w.history.Note("delete all")
	for _, name := range objects {
		w.delete(name)
	}
	for _, name := range objects {
		if _, err := w.Cluster.WaitFor(ctx, "ClientMount", w.Node, name, func(now lab.Object) bool { return now == nil }); err != nil {
			now, _ := w.Cluster.Get(w.tb.Context(), "ClientMount", w.Node, name)
			w.tb.Errorf("%s is not gone after the end of all faults: %v; status %v", name, err, now["status"])
		}
	}
	if w.tb.Failed() {
		return
	}
	for ctx.Err() == nil { // the daemon may still clean up
		if w.unmountForeign(); len(w.foreign) == 0 {
			break
		}
		kube.Pause(ctx, 100*time.Millisecond)
	}
	w.nothingLeft(ctx)
	w.counts.Slowest = time.Since(began)
	w.cost()
	w.terminate()
	w.commands()
}

// differs returns a path of the object that is not as the object wants it, or "".
func (w *node) differs(o *object) (string, error) {
	for _, m := range o.mounts {
		_, mounted, err := w.MountAt(w.Path(m.path))
		if err != nil || mounted != (o.state == "mounted") {
			return m.path, err
		}
	}
	return "", nil
}

// shared reports whether another object has one of the paths of the object.
func (w *node) shared(name string) bool {
	for other, p := range w.objects {
		if other != name && slices.ContainsFunc(p.mounts, func(n place) bool {
			return slices.ContainsFunc(w.objects[name].mounts, func(m place) bool { return m.path == n.path })
		}) {
			return true
		}
	}
	return false
}

// foreignDirectory reports whether another program has created the directory, or one below it.
func (w *node) foreignDirectory(path string) bool {
	for dir := range w.dirs {
		if strings.HasPrefix(dir+"/", path+"/") {
			return true
		}
	}
	return false
}

// stopLostLockspaces stops the lockspaces of volumes that were lost, like an administrator: LVM cannot
// stop them without their volume group.
func (w *node) stopLostLockspaces() {
	for name, v := range w.made {
		if active, err := v.Active(); err != nil || active || !w.history.wasLost(name) {
			continue
		}
		if locked, err := w.Locked(v.VG); err == nil && locked {
			_ = w.Tool("vgchange", "--lock-stop", v.VG)
		}
	}
}

// nothingLeft waits until nothing of the daemon is left: it may still clean up after an object that was
// removed without its consent.
func (w *node) nothingLeft(ctx context.Context) {
	var left []string
	for {
		left = nil
		w.stopLostLockspaces()
		all, err := w.Leftovers()
		w.Must(err)
		for _, l := range all {
			if !strings.Contains(l, " at "+w.Runtime+" ") {
				left = append(left, l)
			}
		}
		records, err := os.ReadDir(filepath.Join(w.Runtime, "mounts"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.tb.Error(err)
		}
		for _, r := range records {
			left = append(left, "record "+r.Name())
		}
		_ = filepath.WalkDir(w.Base, func(path string, _ os.DirEntry, err error) error {
			if err == nil && path != w.Base && !w.foreignDirectory(path) {
				left = append(left, "directory "+path)
			}
			return nil
		})
		if len(left) == 0 {
			_ = os.RemoveAll(w.Base)
			return
		}
		if kube.Pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			for _, l := range left {
				w.tb.Error("left behind: ", l)
			}
			return
		}
	}
}

// An idle daemon has 10 descriptors and up to 9 threads.
const (
	mostFiles   = 12
	mostThreads = 12
)

// cost checks what the daemon holds when nothing is left to do, and its requests in a script without
// faults: a ClientMount that is mounted, unmounted and deleted takes four that change objects, and each
// change of its spec not more than two.
func (w *node) cost() {
	u, err := w.daemon.Usage()
	w.Must(err)
	if u.Files > mostFiles || u.Threads > mostThreads {
		w.tb.Errorf("the daemon has %d descriptors and %d threads in the end, not more than %d and %d", u.Files, u.Threads, mostFiles, mostThreads)
	}
	if w.counts.Faults > 0 {
		return
	}
	writes := 0
	for _, r := range w.Proxy.Requests() {
		if r.Method != http.MethodGet && strings.Contains(r.Path, "/clientmounts/") {
			writes++
		}
	}
	if most := 4*w.lives + 2*w.changes; writes > most {
		w.tb.Errorf("%d requests that change objects for %d ClientMounts and %d changes, not more than %d", writes, w.lives, w.changes, most)
	}
}

// commands checks the calls of the tools: none of those that change something runs longer than its
// limit.
func (w *node) commands() {
	calls, err := w.Log()
	w.Must(err)
	for _, c := range calls {
		if took := c.End.Sub(c.Start); !c.End.IsZero() && took > commandTimeout+overrun && !slices.Contains([]string{"mount.lustre", "mount.gfs2"}, c.Tool) {
			w.tb.Errorf("%s %s took %v", c.Tool, strings.Join(c.Argv, " "), took)
		}
	}
}

// tidy ends everything of the world, after a failure too, and reports what the history has found.
func (w *node) tidy() {
	w.history.stop()
	w.counts.Checks += w.history.Checks()
	for _, problem := range w.history.Problems() {
		w.tb.Error(problem)
	}
	if w.tb.Failed() {
		w.tb.Log("the history:\n" + w.history.String())
	}
	w.cont()
	w.kill()
	w.endCommands()
	w.Proxy.Clear()
	_ = w.Proxy.Accept()
	w.release()
	w.tb.Cleanup(w.forgetPids) // when all of its processes have ended
	for _, d := range w.daemons {
		d.Kill9() // so that its exit code does not count
	}
	_ = w.ClearFaults()
	_ = unix.Mount("", w.Runtime, "", unix.MS_REMOUNT, "size=1m")
	if !w.tb.Failed() {
		return
	}
	mounts, _ := w.Mounts()
	for _, m := range slices.Backward(mounts) {
		if m.Target != w.Runtime {
			_ = unix.Unmount(m.Target, unix.MNT_DETACH)
		}
	}
	_ = w.Reboot()
	_ = os.RemoveAll(w.Base)
	for _, name := range append([]string{probeName}, objects...) {
		_ = w.Cluster.DropFinalizers(context.Background(), "ClientMount", w.Node, name)
		_ = w.Cluster.Delete(context.Background(), "ClientMount", w.Node, name)
	}
}
