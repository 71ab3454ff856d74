package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is one NVMe namespace that this node sees. The kernel assigns the numbers in
// Device; only NQN and NSID identify the storage.
type Namespace struct {
	Device     string // /dev/nvme0n1; the multipath head if there are several paths
	Controller string // nvme0; the first one of a multipath head; may be empty
	NQN        string // of the subsystem
	NSID       uint64
}

// Names in sysfs and /dev. nvme0c1n2 is a hidden path of the multipath head nvme0n2.
var (
	controllerName = regexp.MustCompile(`^nvme[0-9]+$`)
	namespaceName  = regexp.MustCompile(`^nvme[0-9]+n[0-9]+$`)
	pathName       = regexp.MustCompile(`^(nvme[0-9]+)c[0-9]+(n[0-9]+)$`)
)

// Namespaces returns the namespaces of this node from sysfs, sorted by length and text of
// the device name. If sysfs has no NVMe class, as in tests with fake tools, it runs
// nvme-cli with the time limit timeout.
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

// sysfsNamespaces returns the namespaces in sysfs: below a controller, or below the
// subsystem for a multipath head. The error is fs.ErrNotExist if there is no NVMe class.
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

// controllers returns the names of the NVMe controllers. The error is fs.ErrNotExist if
// sysfs has no NVMe class.
func (n *Node) controllers() ([]string, error) {
	class := n.kernel("/sys/class/nvme")
	if _, err := os.Stat(class); err != nil {
		return nil, err
	}
	return names(class, controllerName), nil
}

// namespacesIn returns the namespaces directly below one subsystem or controller. It skips
// namespaces that are removed while it reads.
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

// names returns the sorted entries of dir that match; none if dir is missing.
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

// attribute returns the content of a one-line file of sysfs, or "" if it cannot be read.
func attribute(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// nvmeCapture bounds the listing: about 1 KiB for each namespace.
const nvmeCapture = 8 << 20

// listNVMe returns the namespaces that nvme-cli lists.
func (n *Node) listNVMe(ctx context.Context, timeout time.Duration) ([]Namespace, error) {
	res, err := n.Run(ctx, Command{
		Argv:    []string{"nvme", "list", "-v", "--output-format=json"},
		Timeout: timeout, Capture: nvmeCapture,
	})
	if err != nil {
		return nil, err
	}
	return parseNVMeList(res.Stdout)
}

// The output of nvme-cli. In 1.x, each entry of Devices has the fields of the subsystem;
// in 2.x, it has a list Subsystems. Multipath heads are next to the controllers.
type (
	nvmeList struct {
		Devices []nvmeDevice
	}
	nvmeDevice struct {
		nvmeSubsystem
		Subsystems []nvmeSubsystem
	}
	nvmeSubsystem struct {
		SubsystemNQN string
		Controllers  []struct {
			Controller string
			Namespaces []nvmeNamespace
		}
		Namespaces []nvmeNamespace
	}
	nvmeNamespace struct {
		NameSpace string
		NSID      nsid
	}
)

// nsid is a namespace ID, which some versions print as a string.
type nsid uint64

func (v *nsid) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	if s == "" || s == "null" {
		return nil
	}
	u, err := strconv.ParseUint(s, 0, 32)
	*v = nsid(u)
	return err
}

// parseNVMeList parses the output of nvme list -v in the layouts of 1.x and 2.x.
func parseNVMeList(out string) ([]Namespace, error) {
	var doc nvmeList
	if err := parseJSON("nvme list", out, &doc); err != nil {
		return nil, err
	}
	var all []Namespace
	for _, d := range doc.Devices {
		for _, s := range append([]nvmeSubsystem{d.nvmeSubsystem}, d.Subsystems...) {
			all = append(all, s.namespaces()...)
		}
	}
	return all, nil
}

func (s nvmeSubsystem) namespaces() []Namespace {
	var out []Namespace
	add := func(controller string, spaces []nvmeNamespace) {
		for _, ns := range spaces {
			name := pathName.ReplaceAllString(ns.NameSpace, "$1$2")
			if !namespaceName.MatchString(name) || ns.NSID == 0 || s.SubsystemNQN == "" {
				continue
			}
			out = append(out, Namespace{Device: "/dev/" + name, Controller: controller, NQN: s.SubsystemNQN, NSID: uint64(ns.NSID)})
		}
	}
	first := ""
	for _, c := range s.Controllers {
		if !controllerName.MatchString(c.Controller) {
			c.Controller = ""
		}
		if first == "" {
			first = c.Controller
		}
		add(c.Controller, c.Namespaces)
	}
	add(first, s.Namespaces)
	return out
}

// RescanNVMe makes the kernel scan for attached and detached namespaces, on the
// controllers of the subsystems nqns. If nqns is empty or none of them is found, it scans
// all controllers, because the NQN of an empty subsystem may not be known. It uses sysfs
// (rescan_controller), or nvme-cli with the time limit timeout. It logs controllers that
// fail, and returns an error only if all fail. The kernel finishes the scan later: see
// WaitNamespaces. A node without controllers is not an error.
func (n *Node) RescanNVMe(ctx context.Context, nqns []string, timeout time.Duration) error {
	all, err := n.controllers()
	if err != nil {
		all = names(n.kernel("/dev"), controllerName)
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(c string) bool {
		return !slices.Contains(nqns, attribute(n.kernel("/sys/class/nvme"), c, "subsysnqn"))
	})
	if len(chosen) == 0 {
		chosen = all
	}
	var failed []error
	for _, c := range chosen {
		if err := n.rescan(ctx, c, timeout); err != nil {
			n.log().Warn("could not rescan an NVMe controller", "controller", c, "error", err)
			failed = append(failed, fmt.Errorf("%s: %w", c, err))
		}
	}
	if len(failed) > 0 && len(failed) == len(chosen) {
		return fmt.Errorf("could not rescan NVMe devices: %w", errors.Join(failed...))
	}
	return nil
}

func (n *Node) rescan(ctx context.Context, controller string, timeout time.Duration) error {
	f, err := os.OpenFile(n.kernel("/sys/class/nvme/"+controller+"/rescan_controller"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("1")
		f.Close()
		if err == nil {
			return nil
		}
	}
	_, cerr := n.Run(ctx, Command{Argv: []string{"nvme", "ns-rescan", "/dev/" + controller}, Timeout: timeout})
	if cerr != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, cerr)
	}
	return cerr
}

// WaitNamespaces waits until all namespaces in want are attached and have a device node,
// at most for limit, and returns those that are still missing. It compares only NQN and
// NSID. The kernel wakes it when something appears in /dev. The error is that of the
// listing, or the cause of ctx.
func (n *Node) WaitNamespaces(ctx context.Context, want []Namespace, limit, timeout time.Duration) (missing []Namespace, err error) {
	dev := n.kernel("/dev")
	seen := "\x00" // nothing was listed yet
	err = n.waitFor(ctx, limit, func() []string { return []string{dev} }, func() (bool, error) {
		// /dev changes for many reasons; list again only if its NVMe nodes change.
		if now := strings.Join(names(dev, namespaceName), " "); now != seen {
			seen = now
		} else {
			return false, nil
		}
		missing, err = n.missing(ctx, want, timeout)
		return err == nil && len(missing) == 0, err
	})
	if errors.Is(err, ErrTooLate) {
		// Check again: sysfs may have been complete only after the node appeared.
		return n.missing(ctx, want, timeout)
	}
	return missing, err
}

// missing returns the namespaces in want that are not attached now.
func (n *Node) missing(ctx context.Context, want []Namespace, timeout time.Duration) ([]Namespace, error) {
	have, err := n.Namespaces(ctx, timeout)
	if err != nil {
		return want, err
	}
	var out []Namespace
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h Namespace) bool {
			return h.NQN == w.NQN && h.NSID == w.NSID && n.exists(h.Device)
		}) {
			out = append(out, w)
		}
	}
	return out, nil
}

func (n *Node) exists(dev string) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Clean(n.kernel(dev)), &st) == nil
}
