package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Holder is one reason why a mount or a block device is busy. Command, Path and Unit
// come from local users: unprintable characters are replaced, nothing else is to be
// believed.
type Holder struct {
	PID     int // 0 when no process is the reason
	UID     uint32
	Command string // the process's short name
	// Kind is one of
	//	cwd, root, exe, fd, mmap  a process uses a file
	//	device                    a process has the block device itself open
	//	other namespace           another mount namespace has the file system, PID is its first process
	//	mount                     a mount below the mount
	//	mounted                   the device is mounted in our own namespace
	//	loop, swap, stacked       a loop device, a swap file or device, a block device on top
	Kind      string
	Path      string // what is held, as the process sees it; the mount point for the kinds of mounts
	Device    string // the kernel's name of the loop device or of the block device on top
	Namespace string // number of the process's mount namespace, empty when it is ours
	Unit      string // the process's systemd unit, container or batch job, as far as its cgroup tells
}

// String returns the one text for a holder, as it is in errors and in the log.
func (h Holder) String() string {
	switch h.Kind {
	case "mount":
		return "mount " + h.Path + " below it"
	case "mounted":
		return "mounted at " + h.Path
	case "loop":
		return "loop device " + h.Device + " backed by " + h.Path
	case "swap":
		if safepath.Within(h.Path, "/dev") {
			return "swap on " + h.Path
		}
		return "swap file " + h.Path
	case "stacked":
		if h.Path != "" {
			return "device-mapper device " + h.Path + " (" + h.Device + ") on top of it"
		}
		return "block device " + h.Device + " on top of it"
	}
	who := fmt.Sprintf("pid %d (%s, uid %d", h.PID, h.Command, h.UID)
	if h.Unit != "" {
		who += ", " + h.Unit
	}
	if h.Namespace != "" {
		who += ", mount namespace " + h.Namespace
	}
	who += "): "
	if h.Kind == "other namespace" {
		return who + "mounted at " + h.Path + " in another namespace"
	}
	return who + h.Kind + " " + h.Path
}

// HolderText returns the text of a list of holders. Those after the first most are
// only counted.
func HolderText(list []Holder, most int) string {
	var s []string
	for i, h := range list {
		if i == most {
			s = append(s, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		s = append(s, h.String())
	}
	return strings.Join(s, "; ")
}

// Holders returns what keeps m busy, at most limit of them (0 means all), the mounts
// below it first, then processes by number, one reason each. It reads only /proc and
// /sys, never the mount itself. When ctx ends it returns what it found so far together
// with ctx's error; so young processes are searched first, since those that came with
// the job are the likely ones, and mappings last, since they cost the most.
//
// Another mount namespace that has the same file system is reported once, by its
// first process: it does not hinder umount, but keeps the device open afterwards.
// One whose mount goes with ours, as that of a service of systemd, is not.
//
// If no holder is found and most processes may not be looked at, that is an error.
func (n *Node) Holders(ctx context.Context, m Mount, limit int) ([]Holder, error) {
	table, err := n.mountsBelow(m.Mountpoint)
	if err != nil {
		return nil, err
	}
	s := &search{n: n, m: m, limit: limit, namespaces: map[string]*mountNS{}, waiting: n.waitingNow()}
	for _, b := range table {
		s.add(Holder{Kind: "mount", Path: printable(b.Mountpoint)})
	}
	s.files()
	own := &mountNS{own: true, points: []string{m.Mountpoint}}
	if err := s.processes(ctx, own, (*worker).links, (*worker).maps); err != nil {
		return s.sorted(), fmt.Errorf("looking for users of %s: %w", m.Mountpoint, err)
	}
	if n := s.mostDenied(); n > 0 {
		return nil, fmt.Errorf("%d processes may not be looked at, which takes CAP_SYS_PTRACE: try fuser -vm %s", n, m.Mountpoint)
	}
	return s.sorted(), nil
}

// search is what the workers of one search share.
type search struct {
	n      *Node
	m      Mount // what is looked for; only its device number when device is set
	device bool  // any mount of the device counts, not m alone
	limit  int
	own    *mountNS
	// Processes that an earlier search still waits for, see Node.await.
	waiting map[int64]bool
	root    Device // of the root file system in our namespace, when device is set

	seen, denied, skipped atomic.Int64 // processes that may be looked at, may not, and cannot without waiting

	mu         sync.Mutex
	found      []Holder
	namespaces map[string]*mountNS // by the text of the link ns/mnt
}

// mountNS is a mount namespace.
type mountNS struct {
	own      bool     // the one of this process
	id       string   // its number, empty when it is unknown
	points   []string // mount points of the file system that is looked for
	remotes  []string // mount points that may wait for a server
	below    []string // mount points on or below one of remotes
	outlives bool     // its mount stays when ours is unmounted
	first    int      // its process with the lowest number
}

func (s *search) add(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit <= 0 || len(s.found) < s.limit {
		s.found = append(s.found, h)
	}
}

func (s *search) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit > 0 && len(s.found) >= s.limit
}

// sorted returns the holders: first those that are not processes, then processes by number.
func (s *search) sorted() []Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := slices.Clone(s.found)
	slices.SortStableFunc(found, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	return found
}

// mostDenied returns how many processes may not be looked at when that is why no
// holder was found, else 0.
func (s *search) mostDenied() int64 {
	if n := s.denied.Load(); n > s.seen.Load() && len(s.sorted()) == 0 {
		return n
	}
	return 0
}

// files looks for the kernel's own uses of the mount: loop devices and swap files.
func (s *search) files() {
	block := s.n.kernel("/sys/block")
	for _, name := range names(block, nil) {
		if !strings.HasPrefix(name, "loop") {
			continue
		}
		if p := attribute(block, name, "loop/backing_file"); safepath.Within(p, s.m.Mountpoint) {
			s.add(Holder{Kind: "loop", Device: printable(name), Path: printable(p)})
		}
	}
	s.swaps(func(path string) bool { return safepath.Within(path, s.m.Mountpoint) })
}

// swaps looks for swap files and devices whose path match accepts.
func (s *search) swaps(match func(path string) bool) {
	swaps, err := os.ReadFile(s.n.kernel("/proc/swaps"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(swaps)) {
		if p, _, _ := strings.Cut(line, " "); match(p) {
			s.add(Holder{Kind: "swap", Path: printable(p)})
		}
	}
}

// printable makes a text of local users safe to show.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// unitOf says in a few words what a process belongs to, by the text of its
// /proc/PID/cgroup (cgroups(7)): a batch job, a container, or a unit of systemd. It
// returns "" when the text tells none of these.
func unitOf(cgroup string) string {
	var path string
	for line := range strings.Lines(cgroup) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		// Version 2 has no controllers. With version 1 systemd's own hierarchy is complete.
		if at != "/" && (controllers == "" || controllers == "name=systemd" && path == "") {
			path = at
		}
		// Slurm makes a hierarchy of its own for each controller of version 1.
		if strings.HasPrefix(at, "/slurm") {
			path = at
			break
		}
	}
	parts := strings.Split(path, "/")
	if job := slurmJob(parts); job != "" {
		return job
	}
	unit := ""
	for i, part := range parts {
		if c := container(parts[:i], part); c != "" {
			return c
		}
		if !strings.HasSuffix(part, ".service") && !strings.HasSuffix(part, ".scope") {
			continue
		}
		if strings.HasPrefix(unit, "user@") {
			unit, _, _ = strings.Cut(unit, "/")
			unit += "/" + part // a unit of the user's own manager
		} else {
			unit = part
		}
	}
	return unit
}

// slurmJob finds .../job_123/step_0/... below a directory of Slurm.
func slurmJob(parts []string) string {
	slurm := false
	for _, part := range parts {
		slurm = slurm || strings.HasPrefix(part, "slurm") || strings.HasSuffix(part, "_slurmstepd.scope")
		if id, ok := strings.CutPrefix(part, "job_"); ok && slurm && number(id) {
			return "slurm job " + id
		}
	}
	return ""
}

// runtimes are the prefixes that container runtimes give to the names of their scopes.
var runtimes = [][2]string{
	{"docker-", "docker"}, {"libpod-", "podman"}, {"cri-containerd-", "containerd"}, {"crio-", "cri-o"}, {"nerdctl-", "containerd"},
}

// shortID is how much of a container's id its runtime shows in lists.
const shortID = 12

// container returns which container the directory name of a cgroup below above is, or "".
func container(above []string, name string) string {
	runtime, id := "", strings.TrimSuffix(name, ".scope")
	for _, r := range runtimes {
		if rest, ok := strings.CutPrefix(id, r[0]); ok {
			runtime, id = r[1]+" ", rest
			break
		}
	}
	// containerd without systemd: kubepods-...:cri-containerd:ID
	if i := strings.LastIndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	if runtime == "" && len(above) > 0 {
		switch parent := above[len(above)-1]; parent {
		case "docker":
			runtime = "docker "
		case "libpod_parent":
			runtime = "podman "
		}
	}
	return runtime + "container " + id[:shortID]
}

func number(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
