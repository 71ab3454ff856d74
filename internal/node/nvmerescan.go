package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// RescanNVMe makes the kernel look for namespaces that were attached or detached,
// on the controllers of the subsystems nqns; on all when nqns is empty or none of
// them is here, since an empty subsystem may not be known by name. It uses sysfs
// (rescan_controller) or else nvme-cli, each call limited by timeout. Controllers
// that fail are logged; it is an error only when all fail. The kernel finishes the
// scan later: see WaitNamespaces. No controller at all is no error.
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
			n.log().Warn("an NVMe controller was not rescanned", "controller", c, "error", err)
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

// WaitNamespaces waits until all of want (only NQN and NSID count) are known and
// have their node in /dev, at most for limit, and returns those that are missing
// then. It is woken by the kernel when something appears in /dev. The error says
// that the namespaces could not be listed, or that ctx ended.
func (n *Node) WaitNamespaces(ctx context.Context, want []Namespace, limit, timeout time.Duration) (missing []Namespace, err error) {
	dev := n.kernel("/dev")
	seen := "\x00" // nothing was listed yet
	err = n.waitFor(ctx, limit, func() []string { return []string{dev} }, func() (bool, error) {
		// /dev changes for many reasons; ask again only when it is about NVMe.
		if now := strings.Join(names(dev, namespaceName), " "); now != seen {
			seen = now
		} else {
			return false, nil
		}
		missing, err = n.missing(ctx, want, timeout)
		return err == nil && len(missing) == 0, err
	})
	if errors.Is(err, errTooLate) {
		// A last look, in case sysfs was complete only after the node appeared.
		return n.missing(ctx, want, timeout)
	}
	return missing, err
}

// missing returns those of want that are not there now.
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
