package node

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Namespace is one NVMe namespace that this node sees. The number in Device is the
// kernel's own count; only NQN and NSID name the storage.
type Namespace struct {
	Device     string // /dev/nvme0n1; a multipath head when there are several ways
	Controller string // nvme0; the first one for a multipath head; may be empty
	NQN        string // of the subsystem
	NSID       uint64
}

// Names in sysfs and /dev. nvme0c1n2 is one hidden way to the head nvme0n2.
var (
	controllerName = regexp.MustCompile(`^nvme[0-9]+$`)
	namespaceName  = regexp.MustCompile(`^nvme[0-9]+n[0-9]+$`)
	pathName       = regexp.MustCompile(`^(nvme[0-9]+)c[0-9]+(n[0-9]+)$`)
)

// Namespaces returns the namespaces that the kernel knows, sorted by length and
// text of the device name.
// They come from sysfs; only a kernel that has no NVMe class there (stand-ins in
// tests) makes it ask nvme-cli, whose call timeout limits.
func (n *Node) Namespaces(ctx context.Context, timeout time.Duration) ([]Namespace, error) {
	spaces, err := n.sysfsNamespaces()
	if errors.Is(err, fs.ErrNotExist) {
		spaces, err = n.listNVMe(ctx, timeout)
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(spaces, func(a, b Namespace) int {
		return cmp.Or(cmp.Compare(len(a.Device), len(b.Device)), cmp.Compare(a.Device, b.Device))
	})
	return slices.CompactFunc(spaces, func(a, b Namespace) bool { return a.Device == b.Device }), nil
}

// sysfsNamespaces reads both places where the kernel puts a namespace: below its
// controller, or below the subsystem when it is a multipath head. The error is
// fs.ErrNotExist when there is no NVMe class.
func (n *Node) sysfsNamespaces() ([]Namespace, error) {
	controllers, err := n.controllers()
	if err != nil {
		return nil, err
	}
	var out []Namespace
	subsystems := n.kernel("/sys/class/nvme-subsystem")
	for _, s := range names(subsystems, nil) {
		dir := filepath.Join(subsystems, s)
		first := ""
		if c := names(dir, controllerName); len(c) > 0 {
			first = c[0]
		}
		out = append(out, namespacesIn(dir, first)...)
	}
	for _, c := range controllers {
		out = append(out, namespacesIn(n.kernel("/sys/class/nvme/"+c), c)...)
	}
	return out, nil
}

// controllers returns the names of the NVMe controllers. The error is
// fs.ErrNotExist when the kernel has no NVMe class.
func (n *Node) controllers() ([]string, error) {
	class := n.kernel("/sys/class/nvme")
	if _, err := os.Stat(class); err != nil {
		return nil, err
	}
	return names(class, controllerName), nil
}

// namespacesIn returns the namespaces directly below one subsystem or controller.
// What vanishes while we read is left out.
func namespacesIn(dir, controller string) []Namespace {
	nqn := attribute(dir, "subsysnqn")
	var out []Namespace
	for _, name := range names(dir, namespaceName) {
		if id, err := strconv.ParseUint(attribute(dir, name, "nsid"), 10, 32); err == nil && nqn != "" {
			out = append(out, Namespace{Device: "/dev/" + name, Controller: controller, NQN: nqn, NSID: id})
		}
	}
	return out
}

// names returns the entries of dir that match, sorted; none when dir is missing.
func names(dir string, match *regexp.Regexp) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	all, _ := f.Readdirnames(-1)
	all = slices.DeleteFunc(all, func(s string) bool { return match != nil && !match.MatchString(s) })
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) // nvme2 before nvme10
	})
	return all
}

// attribute reads a one-line file of sysfs, "" when it cannot be read.
func attribute(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
