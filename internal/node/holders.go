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

// Holder is one reason why a mount or a block device is busy. Local users determine
// Command, Path and Unit, so they are not trusted; unprintable characters are replaced.
type Holder struct {
	PID     int    // 0 if the holder is not a process
	Start   string // start time of the process, see Process
	UID     uint32
	Command string // short name of the process
	// Kind is one of
	//	cwd, root, exe, fd, mmap  a process uses a file
	//	device                    a process has the block device itself open
	//	other namespace           another mount namespace has mounted the file system; PID is its first process
	//	mount                     a mount below the mount
	//	mounted                   the device is mounted in our namespace
	//	loop, swap, stacked       a loop device, a swap file or device, a block device on top
	Kind      string
	Path      string // the used path, as the process sees it; the mount point for the kinds of mounts
	Device    string // kernel name of the loop device or of the block device on top
	Namespace string // number of the process's mount namespace, empty if it is ours
	Unit      string // systemd unit, container or batch job of the process, if its cgroup shows one
}

// String returns the text of a holder for errors and the log.
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

// HolderText returns the text of the first most holders of a list, and the number of the
// others.
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

// Holders returns what keeps m busy, at most limit holders (0 means all): first the mounts
// below it, then processes by pid, with one reason each. It reads only /proc and /sys,
// never the mount itself. When ctx ends, it returns the holders found so far and the error
// of ctx. Therefore it inspects processes with high pids first, because those of the job
// are the most likely, and mappings last, because they take the most time.
//
// Another mount namespace with the same file system is reported once, with its first
// process: it does not prevent umount, but keeps the device open after it. A namespace
// whose mount is unmounted together with ours, such as that of a systemd service, is not
// reported.
//
// It is an error if no holder is found and most processes cannot be inspected.
func (n *Node) Holders(ctx context.Context, m Mount, limit int) ([]Holder, error) {
	table, err := n.MountsBelow(m.Mountpoint)
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
		return nil, fmt.Errorf("cannot inspect %d processes without CAP_SYS_PTRACE: try fuser -vm %s", n, m.Mountpoint)
	}
	return s.sorted(), nil
}

// search is the state that the workers of one search share.
type search struct {
	n      *Node
	m      Mount // the mount to search for; only its device number if device is set
	device bool  // search for all mounts of the device, not only for m
	exact  bool  // leave out processes that do not prevent the unmount of m
	only   int   // if not 0, inspect only the process with this pid
	limit  int
	own    *mountNS
	// Processes for which an earlier search still waits, see Node.await.
	waiting map[int64]bool
	root    Device // of the root file system in our namespace, if device is set

	seen, denied, skipped atomic.Int64 // processes that were inspected, that cannot be, and that were skipped to avoid a wait

	mu         sync.Mutex
	found      []Holder
	namespaces map[string]*mountNS // by the text of the link ns/mnt
}

// mountNS is a mount namespace.
type mountNS struct {
	own      bool     // the namespace of this process
	id       string   // its number, empty if it is unknown
	points   []string // mount points of the file system to search for
	ids      []int    // the IDs of these mounts
	excluded []string // with search.exact: mount points below them, whose files are not on them
	remotes  []string // mount points whose file system may wait for a server
	below    []string // mount points on or below one of remotes
	outlives bool     // its mount stays when ours is unmounted
	first    int      // its lowest pid
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

// sorted returns the holders: first those that are not processes, then processes by pid.
func (s *search) sorted() []Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := slices.Clone(s.found)
	slices.SortStableFunc(found, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	return found
}

// mostDenied returns the number of processes that cannot be inspected if this may be why
// no holder was found, otherwise 0.
func (s *search) mostDenied() int64 {
	if n := s.denied.Load(); n > s.seen.Load() && len(s.sorted()) == 0 {
		return n
	}
	return 0
}

// files adds the kernel's own uses of the mount: loop devices and swap files.
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

// swaps adds swap files and devices whose path match accepts.
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

// printable replaces the unprintable characters in a text of local users.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// unitOf returns the batch job, container or systemd unit of a process, from the text of
// its /proc/PID/cgroup (cgroups(7)), or "".
func unitOf(cgroup string) string {
	var path string
	for line := range strings.Lines(cgroup) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, at, _ := strings.Cut(rest, ":")
		// cgroup v2 has no controllers. In v1, systemd's own hierarchy is complete.
		if at != "/" && (controllers == "" || controllers == "name=systemd" && path == "") {
			path = at
		}
		// In v1, Slurm has its own hierarchy for each controller.
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

// slurmJob returns the job in .../job_123/step_0/... below a directory of Slurm, or "".
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

// runtimes maps the prefixes of scope names to container runtimes.
var runtimes = [][2]string{
	{"docker-", "docker"}, {"libpod-", "podman"}, {"cri-containerd-", "containerd"}, {"crio-", "cri-o"}, {"nerdctl-", "containerd"},
}

// shortID is the length of a container ID in the lists of container runtimes.
const shortID = 12

// container returns the container of the cgroup directory name below above, or "".
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
