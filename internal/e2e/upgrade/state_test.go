package upgrade

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// release is the state that a release of clientmountd has left on a node, with all that a
// test needs to make the node again. Only the release itself has written the files.
type release struct {
	Version string `json:"version"` // as the program prints it
	Commit  string `json:"commit"`
	Made    string `json:"made"` // how

	Node    string            `json:"node"`
	Base    string            `json:"base"`
	Owner   string            `json:"owner"`
	Profile string            `json:"profile"`
	Objects []lab.Object      `json:"objects"` // ClientMounts
	Mounts  []lab.Mount       `json:"mounts"`
	Files   map[string]string `json:"files"` // of the runtime directory
	Config  map[string]string `json:"config"`
}

// The ClientMounts of the scenario.
const (
	xfs, raw, gfs2, lustre = "xfs", "raw", "gfs2", "lustre" // mounted
	half                   = "half"                         // killed after the mount, before it was recorded
	busy                   = "busy"                         // an unmount has failed
	failed                 = "failed"                       // its volume does not exist
	refused                = "refused"                      // its profile does not exist
	orphan                 = "orphan"                       // deleted while no daemon ran
	ended                  = "ended"                        // unmounted and deleted; in the history
)

// kept are the mounts that stay in place when the next daemon starts.
var kept = []string{xfs, raw, gfs2, lustre}

// node is a compute node with storage of each kind.
type node struct {
	*fixture.Fixture
	t *testing.T
}

// volumes are the volumes of this process, by the owner and the name of the ClientMount: the lab has no
// way to remove them, and archives of different releases have the same names.
var volumes = map[string]*lab.Volume{}

// newNode creates the storage of the scenario on a node. That of the failed ClientMount is missing
// until appear is called.
func newNode(t *testing.T, f *fixture.Fixture) *node {
	n := &node{f, t}
	n.UseProfile(fixture.ProfileSpec{})
	for _, v := range []struct {
		name string
		o    lab.VolumeOptions
	}{
		{xfs, lab.VolumeOptions{}}, {raw, lab.VolumeOptions{Raw: true}}, {gfs2, lab.VolumeOptions{Shared: true}},
		{half, lab.VolumeOptions{}}, {busy, lab.VolumeOptions{}}, {orphan, lab.VolumeOptions{}}, {ended, lab.VolumeOptions{}}, {failed, lab.VolumeOptions{}},
	} {
		m, owner := n.spec(v.name)
		vg, lv := fixture.VolumeNames(owner, "0", m.Index, true)
		if volumes[owner+v.name] == nil {
			made, err := n.AddVolume(vg, lv, v.o)
			n.Must(err)
			volumes[owner+v.name] = made
		}
	}
	n.Must(volumes[n.Owner+failed].Hide(true))
	return n
}

// spec returns the mount of a ClientMount, and the owner of its volume.
func (n *node) spec(name string) (m fixture.MountSpec, owner string) {
	m, owner = fixture.MountSpec{Path: n.Path(name + "/fs"), Type: "xfs", Index: slices.Index([]string{xfs, half, busy, failed, orphan, ended, raw, refused}, name)}, n.Owner
	switch name {
	case raw:
		m.Type, m.Own, m.UID, m.GID = "none", true, 1234, 2345
	case gfs2: // its group has locks
		m.Type, m.Index, owner = "gfs2", 0, strings.Replace(owner, "2c5d", "2c5e", 1)
	case lustre:
		m = fixture.MountSpec{Path: m.Path, Type: "lustre", FSName: "job7fs", MGS: "10.1.2.3@tcp:10.1.2.4@tcp"}
	}
	return m, owner
}

// appear makes the storage that the failed ClientMount waits for visible.
func (n *node) appear() { n.Must(volumes[n.Owner+failed].Hide(false)) }

// create creates a ClientMount of the scenario.
func (n *node) create(name string) {
	m, owner := n.spec(name)
	s := fixture.ClientMountSpec{Profile: n.Profile, OwnerUID: owner, Mounts: []fixture.MountSpec{m}}
	if name == refused {
		s.Profile = "no-such-profile"
	}
	n.Apply(fixture.ClientMount(name, n.Node, s))
}

// start starts a build of clientmountd, with its boundaries in a log. It is killed at the boundary.
func (n *node) start(program, boundary string, flags ...string) *lab.Process {
	return n.Launch(lab.Spec{Program: program, Args: flags, Env: []string{
		fixture.FSTypes, "CLIENTMOUNTD_FAILPOINT=" + boundary, "CLIENTMOUNTD_FAILPOINT_LOG=" + n.passed(),
	}})
}

func (n *node) passed() string { return n.Runtime + ".passed" }

// afterMount returns the boundary after the mount command, before the mount is recorded.
func (n *node) afterMount() string {
	text, err := os.ReadFile(n.passed())
	n.Must(err)
	for _, line := range strings.Fields(string(text)) {
		if strings.HasSuffix(line, "/mounted") {
			return line
		}
	}
	n.t.Fatalf("no boundary after a mount: %s", text)
	return ""
}

// write lets a build of clientmountd work until it has left all kinds of state.
func (n *node) write(program string) {
	d := n.start(program, "")
	n.Ready(d)
	for _, name := range append(slices.Clone(kept), busy, orphan, ended) {
		n.create(name)
		n.Await(name, "mounted")
	}
	n.Unmount(ended)
	n.Delete(ended)
	for _, name := range []string{failed, refused} {
		n.create(name)
		n.AwaitError(name)
	}
	h, err := n.Busy(lab.HoldOpen, n.Path(busy+"/fs"))
	n.Must(err)
	n.Want(busy, "unmounted")
	n.AwaitError(busy)
	n.Stop(d)

	d = n.start(program, n.afterMount())
	n.Ready(d)
	n.create(half)
	if code, err := d.Wait(n.Context(n.Patience)); err != nil || code != 128+9 {
		n.t.Fatalf("the boundary was not reached: exit code %d, %v", code, err)
	}
	n.Must(h.Release())
	n.Remove(orphan)
	n.Must(n.Cluster.DropFinalizers(n.Context(n.Patience), "ClientMount", n.Node, orphan))
	if err := n.Cluster.WaitGone(n.Context(n.Patience), "ClientMount", n.Node, orphan); err != nil {
		n.t.Fatal(err)
	}
}

// read lets a build of clientmountd continue with what another one has left, and checks that
// nothing is lost, mounted again, or not understood.
func (n *node) read(program string) {
	before := map[string]int{}
	for _, name := range append(slices.Clone(kept), half, busy, orphan) {
		before[name] = n.mounted(name)
	}
	n.Must(n.ClearLog())
	d := n.start(program, "", "--orphans=unmount")
	n.Ready(d)
	for _, name := range append(slices.Clone(kept), half) {
		n.Await(name, "mounted")
		if now := n.mounted(name); now != before[name] {
			n.t.Errorf("%s was mounted again: mount %d, was %d", name, now, before[name])
		}
	}
	n.Await(busy, "unmounted")
	n.goes(busy)
	n.goes(orphan)
	n.appear()
	n.Await(failed, "mounted")
	calls, err := n.Log()
	n.Must(err)
	for _, c := range calls {
		if c.Tool == "mount" && !slices.Contains(c.Argv, n.Path(failed+"/fs")) {
			n.t.Errorf("called again: mount %v", c.Argv)
		}
	}
	n.understood(d)
	for _, name := range append(slices.Clone(kept), half, failed) {
		n.Unmount(name)
	}
	for _, name := range append(slices.Clone(kept), half, failed, busy, refused) {
		n.Delete(name)
	}
	wait.Until(n.t, "the removal of all records", func() bool {
		left, err := filepath.Glob(filepath.Join(n.Runtime, "*", "*"))
		n.Must(err)
		return len(left) == 0
	})
	n.Stop(d)
	n.understood(d)
	n.NothingLeft()
}

// mounted returns the number of the mount of a ClientMount.
func (n *node) mounted(name string) int {
	n.t.Helper()
	m, ok, err := n.MountAt(n.Path(name + "/fs"))
	n.Must(err)
	if !ok {
		n.t.Errorf("%s is not mounted", name)
	}
	return m.ID
}

// goes waits until the mount of a ClientMount is gone.
func (n *node) goes(name string) {
	n.t.Helper()
	path := n.Path(name + "/fs")
	wait.Until(n.t, "the end of the mount "+path, func() bool { _, ok, err := n.MountAt(path); n.Must(err); return !ok })
}

// notUnderstood matches a log record about a file that the daemon cannot use.
var notUnderstood = regexp.MustCompile(`(?i)record|history|unreadable|unknown|version|state of the daemon`)

// understood checks that the daemon has not complained about what it has found.
func (n *node) understood(d *lab.Process) {
	n.t.Helper()
	for _, line := range d.Log() {
		level, _ := line.Fields["level"].(string)
		message, _ := line.Fields["msg"].(string)
		if (level == "WARN" || level == "ERROR") && notUnderstood.MatchString(message) {
			n.t.Errorf("not understood: %s", line.Text)
		}
	}
}

// pack returns what the last daemon has left.
func (n *node) pack() *release {
	r := &release{Node: n.Node, Base: n.Base, Owner: n.Owner, Profile: n.Profile, Files: n.files()}
	for _, name := range append(slices.Clone(kept), half, busy, failed, refused) {
		o, err := n.Cluster.Get(n.Context(n.Patience), "ClientMount", n.Node, name)
		n.Must(err)
		meta := map[string]any{}
		for _, key := range []string{"name", "namespace", "uid", "labels", "finalizers"} {
			if v := o.At("metadata", key); v != nil {
				meta[key] = v
			}
		}
		r.Objects = append(r.Objects, lab.Object{"apiVersion": o["apiVersion"], "kind": o["kind"], "metadata": meta, "spec": o["spec"], "status": o["status"]})
	}
	mounts, err := n.Lab.Mounts()
	n.Must(err)
	for _, m := range mounts {
		if strings.HasPrefix(m.Target, n.Base+"/") {
			r.Mounts = append(r.Mounts, m)
		}
	}
	return r
}

// files returns the files of the runtime directory.
func (n *node) files() map[string]string {
	all := map[string]string{}
	n.Must(filepath.WalkDir(n.Runtime, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(n.Runtime, path)
		all[name] = string(data)
		return err
	}))
	return all
}

// unpack makes the node of a release again: its mounts, its objects and its files. Numbers that the
// kernel and the API server assign are replaced by those of today.
func unpack(t *testing.T, r *release) *node {
	f := fixture.New(t)
	f.Base, f.Owner, f.Profile = r.Base, r.Owner, r.Profile
	n := newNode(t, f.As(r.Node))
	n.mountAgain(r)
	for _, o := range r.Objects {
		meta := map[string]any{"name": o.Name(), "namespace": o.Namespace(), "labels": o.At("metadata", "labels")}
		if list := o.At("metadata", "finalizers"); list != nil {
			meta["finalizers"] = list
		}
		made, err := n.Cluster.Create(n.Context(n.Patience), lab.Object{"apiVersion": o["apiVersion"], "kind": o["kind"], "metadata": meta, "spec": o["spec"]})
		n.Must(err)
		if status := o["status"]; status != nil {
			n.Must(n.Cluster.PatchStatus(n.Context(n.Patience), "ClientMount", n.Node, o.Name(), status))
		}
		old, now := o.String("metadata", "uid"), made.String("metadata", "uid")
		files := map[string]string{}
		for name, text := range r.Files {
			files[strings.ReplaceAll(name, old, now)] = strings.ReplaceAll(text, old, now)
		}
		r.Files = files
	}
	for name, text := range r.Files {
		path := filepath.Join(n.Runtime, name)
		n.Must(os.MkdirAll(filepath.Dir(path), 0o700))
		n.Must(os.WriteFile(path, []byte(n.renumber(name, text)), 0o600))
	}
	return n
}

// mountAgain activates and mounts what was active and mounted.
func (n *node) mountAgain(r *release) {
	for _, m := range r.Mounts {
		name := filepath.Base(filepath.Dir(m.Target))
		spec, owner := n.spec(name)
		source, target := m.Source, m.Target
		args := []string{"-t", spec.Type}
		if spec.Type != "lustre" {
			vg, lv := fixture.VolumeNames(owner, "0", spec.Index, true)
			if spec.Type == "gfs2" {
				n.Must(n.Tool("vgchange", "--lock-start", vg))
			}
			n.Must(n.Tool("lvchange", "--activate", "y", vg+"/"+lv))
			source = lab.DevicePath(vg, lv)
		}
		n.Must(os.MkdirAll(filepath.Dir(target), 0o755))
		if spec.Type == "none" {
			n.Must(os.WriteFile(target, nil, 0o644))
			args = []string{"-o", "bind"}
		} else {
			n.Must(os.MkdirAll(target, 0o755))
		}
		n.Must(n.Tool("mount", append(args, source, target)...))
	}
}

// renumber replaces the numbers of mounts and devices in a record.
func (n *node) renumber(name, text string) string {
	if filepath.Dir(name) != "mounts" {
		return text
	}
	var record map[string]any
	n.Must(json.Unmarshal([]byte(text), &record))
	list, _ := record["mounts"].([]any)
	for _, m := range list {
		identity, ok := m.(map[string]any)["mounted"].(map[string]any)
		if !ok {
			continue
		}
		path := lab.Object(m.(map[string]any)).String("plan", "path")
		now, ok, err := n.MountAt(path)
		n.Must(err)
		if !ok {
			continue
		}
		identity["id"], identity["device"] = now.ID, now.Device
	}
	out, err := json.Marshal(record)
	n.Must(err)
	return string(out)
}

// version returns what a program prints about itself.
func version(t *testing.T, program string) string {
	out, err := exec.Command(program, "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
