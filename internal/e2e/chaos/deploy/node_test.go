package deploy

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// nodeNames are the nodes. The last one is added by a step.
var nodeNames = []string{"compute-01", "compute-02", "compute-03"}

// disks are the file systems of a node that a step can fill or make read-only.
var disks = []string{"etc", "usr", "var/lib"}

// account is the user and group of nnf-dm. Local users have another one.
const (
	account   = 64321
	localUser = 65534
)

// node is one compute node: a directory with file systems of its own.
type node struct {
	tb     lab.TB
	name   string
	root   string
	fleet  string          // the directory of all nodes
	before map[string]bool // paths of a new node

	model   model
	admin   map[string]string // contents of the administrator's files, by path
	planted map[string]bool   // links of local users
	touched map[string]bool   // files whose mode or owner the administrator has changed
	runs    []*run            // since the last check
	booted  bool              // it was restarted since the last check
	version int               // of the administrator's files
	crashed bool              // processes that change the node were killed

	rpmCrashed bool // some time in this world
}

func newNode(tb lab.TB, fleet, name string) *node {
	tb.Helper()
	n := &node{tb: tb, name: name, root: filepath.Join(fleet, name), fleet: fleet, admin: map[string]string{}, planted: map[string]bool{}, touched: map[string]bool{}}
	for _, dir := range append([]string{""}, disks...) {
		path := filepath.Join(n.root, dir)
		n.must(os.MkdirAll(path, 0o755))
		n.must(unix.Mount("chaos-"+strings.ReplaceAll(dir, "/", "-"), path, "tmpfs", 0, "mode=0755,size=64m"))
		tb.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	}
	n.must(fakenode.Make(fleet, name))
	for _, d := range product.Daemons {
		n.put("run/fake/answer."+d.Name, status(tb, d), 0o600)
	}
	n.put(victim, "of another program\n", 0o600)
	n.before = n.paths()
	n.model = newModel()
	return n
}

// victim is a file of another program: links of local users point to it.
const victim = "srv/victim"

func (n *node) must(err error) {
	n.tb.Helper()
	if err != nil {
		n.tb.Fatal(err)
	}
}

func (n *node) path(name string) string { return filepath.Join(n.root, name) }

func (n *node) put(name, text string, mode fs.FileMode) {
	n.tb.Helper()
	n.must(os.MkdirAll(filepath.Dir(n.path(name)), 0o755))
	n.must(os.WriteFile(n.path(name), []byte(text), mode))
}

// get returns the contents of a regular file, or "".
func (n *node) get(name string) string {
	if st, err := os.Lstat(n.path(name)); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	data, _ := os.ReadFile(n.path(name)) // it may have gone
	return string(data)
}

// paths returns all paths of the node, except those of the fakes and of the database of rpm.
func (n *node) paths() map[string]bool {
	all := map[string]bool{}
	_ = filepath.WalkDir(n.root, func(path string, _ fs.DirEntry, err error) error {
		name := strings.TrimPrefix(strings.TrimPrefix(path, n.root), "/")
		switch {
		case err != nil:
			return nil // it has gone
		case name == "run/fake" || name == "var/lib/rpm":
			return fs.SkipDir
		}
		all[name] = true
		return nil
	})
	return all
}

// process is a process of a node.
type process struct {
	pid, session int
	command      string
}

// processes returns the processes of the node.
func (n *node) processes() (list []process) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		environment, err := os.ReadFile(dir + "/environ")
		if err != nil {
			continue // it has exited
		}
		vars := "\x00" + string(environment)
		if !strings.Contains(vars, "\x00R="+n.root+"\x00") && !strings.Contains(vars, "\x00"+fakenode.NodeVariable+"="+n.root+"\x00") {
			continue
		}
		stat, _ := os.ReadFile(dir + "/stat")
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if len(f) < 4 || f[0] == "Z" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		session, _ := strconv.Atoi(f[3])
		line, _ := os.ReadFile(dir + "/cmdline")
		list = append(list, process{pid, session, strings.ReplaceAll(string(line), "\x00", " ")})
	}
	return list
}

// idle reports whether no process of nnf-deploy runs on the node.
func (n *node) idle() bool { return len(n.processes()) == 0 }

// switches reports whether the process belongs to a switch, which does not depend on the connection.
func switches(list []process, p process) bool {
	return slices.ContainsFunc(list, func(o process) bool { return o.session == p.session && strings.Contains(o.command, "/switch.sh") })
}

// kill kills the processes for which which returns true, and those that they have started meanwhile. It
// reports whether there were any.
func (n *node) kill(which func(list []process, p process) bool) bool {
	killed := false
	for range 20 {
		list := slices.Clone(n.processes())
		some := false
		for _, p := range list {
			if which(list, p) {
				n.crashed = n.crashed || switches(list, p)
				some = unix.Kill(p.pid, unix.SIGKILL) == nil || some
			}
		}
		if !some {
			break
		}
		killed = true
		time.Sleep(time.Millisecond) // the kernel needs some time
	}
	return killed
}

// killOne kills the youngest process, as the kernel does without memory. If that is a command of the
// switch, the switch continues and must undo its changes.
func (n *node) killOne() bool {
	list := n.processes()
	if len(list) == 0 {
		return false
	}
	p := slices.MaxFunc(list, func(a, b process) int { return a.pid - b.pid })
	n.crashed = n.crashed || strings.Contains(p.command, "/switch.sh")
	return unix.Kill(p.pid, unix.SIGKILL) == nil
}

// reboot kills all processes, removes what does not survive, and starts the enabled units.
func (n *node) reboot() {
	n.kill(func([]process, process) bool { return true })
	n.booted = true
	n.crashed = n.crashed || exists(n.path("var/lib/nnf-deploy/stage"))
	for _, pattern := range []string{"active.*", "running.*", "starts.*", "restarts.*", "hang", "refuse"} {
		list, _ := filepath.Glob(n.path("run/fake/" + pattern))
		for _, path := range list {
			n.must(os.Remove(path))
		}
	}
	list, _ := filepath.Glob(n.path("run/fake/enabled.*"))
	for _, path := range list {
		if data, _ := os.ReadFile(path); strings.TrimSpace(string(data)) == "enabled" {
			_ = n.command("systemctl", "start", strings.TrimPrefix(filepath.Base(path), "enabled.")).Run() // it may fail
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// command returns a command of the node.
func (n *node) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(n.fleet, ".bin", name), args...)
	cmd.Env = []string{"R=" + n.root, "PATH=" + filepath.Join(n.fleet, ".bin") + ":/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"}
	return cmd
}

// fault makes the connections to the node fail.
func (n *node) fault(text string) {
	n.tb.Helper()
	n.must(os.WriteFile(n.root+".fault", []byte(text), 0o600))
}

const filler = ".filler" // a file that fills a disk

// disk fills a file system up to a rest of this many KiB, or makes it read-only or writable.
func (n *node) disk(dir, how string) {
	n.tb.Helper()
	path := n.path(dir)
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	if how == "read-only" {
		flags |= unix.MS_RDONLY
	}
	n.must(unix.Mount("", path, "", flags, ""))
	if how == "read-only" {
		return
	}
	file := filepath.Join(path, filler)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.tb.Fatal(err)
	}
	if how == "usual" {
		return
	}
	rest, _ := strconv.Atoi(how)
	var st unix.Statfs_t
	n.must(unix.Statfs(path, &st))
	if size := int64(st.Bavail)*st.Bsize - int64(rest)<<10; size > 0 {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
		n.must(err)
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && !errors.Is(err, unix.ENOSPC) { // the node writes at the same time
			n.must(err)
		}
		n.must(f.Close())
	}
}

// edits are the files of the administrator.
var edits = []string{
	"etc/clientmountd/config.toml", "etc/nnf-dm/config.toml", "etc/nnf-dm/config.d/90-site.toml", "etc/clientmountd/notes", "etc/nnf-dm/service.token.saved",
	"etc/systemd/system/clientmountd.service.d/99-site.conf", "etc/systemd/system/nnf-dm.service.d/override.conf", "etc/systemd/system/nnf-dm.timer.d/90-site.conf",
	"usr/bin/nnf-dm-site", "var/lib/nnf-dm/notes", "etc/systemd/system/clientmountd-site.service",
}

// edit writes a file of the administrator. It reports whether it has; the disk may be full.
func (n *node) edit(name string) bool {
	n.version++
	text := "# edited by the administrator of " + n.name + ": " + strconv.Itoa(n.version) + "\n"
	full := n.path(name)
	if strings.HasSuffix(name, ".conf") {
		text += "[Service]\nMemoryMax=1G\n"
	}
	if os.MkdirAll(filepath.Dir(full), 0o755) != nil {
		return false
	}
	delete(n.admin, name)
	if os.WriteFile(full+".edit", []byte(text), 0o644) != nil || os.Rename(full+".edit", full) != nil {
		_ = os.Remove(full + ".edit")
		return false
	}
	n.admin[name] = text
	return true
}

// permission is a change that an administrator makes by mistake.
type permission struct {
	path string
	mode fs.FileMode // 0: the owner is changed
}

var permissions = map[string]permission{
	"token":      {"etc/nnf-dm/service.token", 0o644},
	"tokens":     {"etc/clientmountd/service.token", 0o666},
	"directory":  {"etc/nnf-dm", 0o777},
	"settings":   {"etc/clientmountd/config.d", 0o777},
	"owner":      {"etc/nnf-dm", 0},
	"file-owner": {"etc/nnf-dm/service.token", 0},
	"state":      {"var/lib/nnf-dm", 0o755},
}

// permit makes the change, if the file exists.
func (n *node) permit(p permission) error {
	path := n.path(p.path)
	if st, err := os.Lstat(path); err != nil || st.Mode()&fs.ModeSymlink != 0 {
		return fs.ErrNotExist
	}
	n.touched[p.path] = true
	if p.mode == 0 {
		return os.Lchown(path, localUser, localUser)
	}
	return os.Chmod(path, p.mode)
}

// links are where local users put links to files of others: suffixes are those of nnf-deploy.
var links = []string{
	"var/lib/nnf-dm/service.token", "var/lib/nnf-dm/token.json.new", "etc/nnf-dm/service.token.nnf-deploy-new", "etc/nnf-dm/service.token.nnf-deploy-old",
	"etc/nnf-dm/service.cert.nnf-deploy-new", "etc/clientmountd/config.d/50-nnf-deploy.toml.nnf-deploy-new",
}

// plant makes a link to the victim as a local user, if a user can write to the directory. It reports
// whether it has.
func (n *node) plant(name string) bool {
	full := n.path(name)
	var st unix.Stat_t
	if unix.Stat(filepath.Dir(full), &st) != nil {
		return false
	}
	writable := st.Uid == account || st.Uid == localUser || st.Mode&0o002 != 0
	if !writable {
		return false
	}
	_ = os.Remove(full)
	if os.Symlink(n.path(victim), full) != nil {
		return false
	}
	user := localUser
	if st.Uid == account {
		user = account
	}
	n.must(os.Lchown(full, user, user))
	n.planted[name] = true
	return true
}

// unplant removes the links of local users, and what else they have in the way.
func (n *node) unplant() {
	for name := range n.planted {
		if to, err := os.Readlink(n.path(name)); err == nil && to == n.path(victim) {
			_ = os.Remove(n.path(name)) // the disk may be read-only
		}
		delete(n.planted, name)
	}
}

// harmed returns what has happened to the victim, or "".
func (n *node) harmed() string {
	st, err := os.Lstat(n.path(victim))
	if err != nil {
		return err.Error()
	}
	sys := st.Sys().(*syscall.Stat_t)
	if data := n.get(victim); data != "of another program\n" || st.Mode() != 0o600 || sys.Uid != 0 || sys.Gid != 0 {
		return st.Mode().String() + " " + strconv.Itoa(int(sys.Uid)) + ":" + strconv.Itoa(int(sys.Gid)) + ": " + data
	}
	return ""
}
