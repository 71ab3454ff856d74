package clientmount

import (
	"context"
	"log/slog"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// Host is the node without the means to start programs. To start one takes a
// Machine, so that nothing goes around the check for commands that hang.
type Host interface {
	View
	WaitLeft(ctx context.Context, mark string, limit time.Duration, found func(node.Left)) ([]node.Left, error)
	// For returns the node for one purpose. Whatever the Machine starts is started by
	// the Runner that gate returns; next is what really starts it.
	For(c node.Caller, gate func(next node.Runner) node.Runner) Machine
}

// View is what can be seen of the node without a program.
type View interface {
	MountAt(path string) (*node.Mount, error)
	MountsOn(path string) ([]node.Mount, error)
	MountByID(id int) (*node.Mount, error)
	HiddenBy(m node.Mount) (*node.Mount, error)
	BlockDevice(path string) (node.Device, error)
	BoundDevice(m node.Mount) (node.Device, error)
	DMName(d node.Device) (string, error)
	Holders(ctx context.Context, m node.Mount, limit int) ([]node.Holder, error)
	DeviceHolders(ctx context.Context, d node.Device, limit int) ([]node.Holder, error)
	LookupHost(ctx context.Context, host string) (addresses []string, err error)
}

// Machine is what the steps of a plan need from the node; *node.Node is the
// real one.
type Machine interface {
	View
	Run(ctx context.Context, c node.Command) (node.Result, error)

	ResolveTarget(path string) (string, error)
	MissingTargets(path string) []string
	MakeDirectory(path string) (created []string, err error)
	MakeFile(path string) (created []string, err error)
	RemoveTarget(path string, created []string) (left []string, err error)
	ChownMount(m node.Mount, uid, gid uint32) error
	WriteFileIn(dir, name string, data []byte, uid, gid uint32) error

	LockVG(ctx context.Context, vg string) (unlock func(), err error)
	LVs(ctx context.Context, vg string, timeout time.Duration) ([]node.LV, error)
	HasVG(ctx context.Context, vg string, timeout time.Duration) (bool, error)
	WaitVG(ctx context.Context, vg string, limit, timeout time.Duration) error
	WaitDevice(ctx context.Context, path string, limit time.Duration) error

	Namespaces(ctx context.Context, timeout time.Duration) ([]node.Namespace, error)
	RescanNVMe(ctx context.Context, nqns []string, timeout time.Duration) error
	WaitNamespaces(ctx context.Context, want []node.Namespace, limit, timeout time.Duration) (missing []node.Namespace, err error)
}

// NewMachine is this node.
func NewMachine(log *slog.Logger) Host {
	return realHost{&node.Node{Log: log}}
}

type realHost struct{ *node.Node }

func (h realHost) For(c node.Caller, gate func(node.Runner) node.Runner) Machine {
	c.Exec = gate(h.Node)
	return h.Node.For(c)
}

// Limits are the times and counts that an administrator may change while the
// daemon runs. Durations of 0 mean no limit.
type Limits struct {
	Command       time.Duration // one built-in command
	Hook          time.Duration // one hook of the storage profile
	VGWait        time.Duration // a volume group to appear
	DeviceWait    time.Duration // a device node or NVMe namespace to appear
	DeviceRetries int           // activations after a rescan before the failure is reported
	RetryMax      time.Duration // ceiling of the pause between attempts
	Verify        time.Duration // between two checks of a ready mount, 0: never
}

// wanted turns a plan's NVMe list into what the node can look for. Entries
// that are no decimal namespace id cannot be found and are named by bad.
func wanted(p *plan.Plan) (want []node.Namespace, nqns []string, bad []string) {
	for _, n := range p.NVMe {
		id, err := parseNSID(n.NamespaceID)
		if err != nil {
			bad = append(bad, n.DeviceSerial+"/"+n.NamespaceID)
			continue
		}
		want = append(want, node.Namespace{NQN: n.DeviceSerial, NSID: id})
		nqns = append(nqns, n.DeviceSerial)
	}
	return want, nqns, bad
}
