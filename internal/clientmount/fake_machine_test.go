package clientmount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/node"
)

// fakeMachine is a node in memory. It logs all effects, and can simulate failures.
type fakeMachine struct {
	mu     sync.Mutex
	log    []string
	table  []node.Mount // topmost last
	lvs    map[string]bool
	fail   map[string]error // by the first words of a command line
	block  map[string]chan struct{}
	nextID int
	rescan func(f *fakeMachine)
	marked map[string]int // number of commands, by the mark in their environment

	leftovers     map[string][]node.Leftover
	missing       []string      // of the mount target
	stays         []string      // what remains after the removal of a target
	holders       []node.Holder // of a busy mount
	deviceHolders []node.Holder
	users         []node.Holder // that prevent the unmount
	signalled     func(pid int, sig unix.Signal)

	shows string    // source of a Lustre mount in the mount table, if not the requested one
	link  [2]string // a symbolic link and its target

	dmName string // device-mapper name of the device, if not that of the volume

	making func()            // called before the mount target is created
	onLine func(line string) // called when a command starts
}

func newFakeMachine() *fakeMachine {
	return &fakeMachine{
		lvs: map[string]bool{}, fail: map[string]error{}, block: map[string]chan struct{}{}, nextID: 100,
		holders: []node.Holder{{PID: 4242, UID: 1001, Command: "vim", Kind: "cwd", Path: testPath + "/src"}},
	}
}

const (
	testVG     = "2c5d0000-0000-4000-8000-00000000000b_0"
	testLV     = "lv-3"
	testDevice = "/dev/mapper/2c5d0000--0000--4000--8000--00000000000b_0-lv--3"
	testPath   = "/mnt/nnf/11110000-0000-4000-8000-00000000000a-0"
)

// fakeCaller is the fake on behalf of a caller: where the real node runs programs, it uses
// the caller's Runner, which calls fakeMachine.Run.
type fakeCaller struct {
	*fakeMachine
	runner node.Runner
}

func (f *fakeMachine) For(c node.Caller) Machine { return fakeCaller{f, c.Exec} }

func (c fakeCaller) Run(ctx context.Context, cmd node.Command) (node.Result, error) {
	return c.runner.Run(ctx, cmd)
}

func (c fakeCaller) LVs(ctx context.Context, vg string, limit time.Duration) ([]node.LV, error) {
	if _, err := c.Run(ctx, node.Command{Argv: []string{"lvs", vg}, Timeout: limit}); err != nil {
		return nil, err
	}
	return c.volumes(vg), nil
}

func (c fakeCaller) HasVG(ctx context.Context, vg string, limit time.Duration) (bool, error) {
	_, err := c.Run(ctx, node.Command{Argv: []string{"vgs", vg}, Timeout: limit})
	return true, err
}

func (c fakeCaller) WaitVG(ctx context.Context, vg string, _, limit time.Duration) error {
	_, err := c.HasVG(ctx, vg, limit)
	return err
}

func (c fakeCaller) ChownMount(m node.Mount, uid, gid uint32) error {
	_, err := c.Run(context.Background(), node.Command{Argv: []string{"chown", m.Mountpoint, fmt.Sprint(uid), fmt.Sprint(gid)}})
	return err
}

func (f *fakeMachine) note(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

// done returns the log and empties it.
func (f *fakeMachine) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.log
	f.log = nil
	return out
}

func (f *fakeMachine) mounted(path string) bool {
	m, _ := f.MountAt(path)
	return m != nil
}

func (f *fakeMachine) Run(ctx context.Context, c node.Command) (node.Result, error) {
	line := c.String()
	if c.Shell != "" {
		line = "hook " + c.Shell
	}
	f.mu.Lock()
	f.note("%s", line)
	if f.onLine != nil {
		f.onLine(line)
	}
	if f.marked == nil {
		f.marked = map[string]int{}
	}
	for _, kv := range c.Env {
		f.marked[kv]++
	}
	var gate chan struct{}
	for prefix, ch := range f.block {
		if strings.HasPrefix(line, prefix) {
			gate = ch
		}
	}
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return node.Result{}, &node.CommandError{Line: line, Err: ctx.Err(), TimedOut: true}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for prefix, err := range f.fail {
		if strings.HasPrefix(line, prefix) {
			return node.Result{}, err
		}
	}
	if len(c.Argv) == 0 {
		return node.Result{Stdout: "hook ran\n"}, nil
	}
	f.effect(c.Argv)
	return node.Result{}, nil
}

// effect applies the effect of the real programs.
func (f *fakeMachine) effect(argv []string) {
	last := argv[len(argv)-1]
	switch argv[0] {
	case "dmsetup": // remove
		f.lvs[testVG+"/"+testLV] = false
	case "lvchange":
		f.lvs[last] = slices.Contains(argv, "y") || slices.Contains(argv, "ys")
	case "mount":
		m := node.Mount{ID: f.nextID, Mountpoint: last, Source: argv[len(argv)-2], FSType: argv[2], Root: "/", Major: 253, Minor: 7}
		if argv[2] == "none" {
			m.FSType, m.Root, m.Major, m.Minor = "devtmpfs", "/dm-7", 0, 5
		}
		if argv[2] == "lustre" {
			m.Major, m.Minor = 0, 77
			if f.shows != "" {
				m.Source = f.shows
			}
		}
		f.nextID++
		f.table = append(f.table, m)
	case "umount":
		for i, m := range slices.Backward(f.table) {
			if m.Mountpoint == last {
				f.table = slices.Delete(f.table, i, i+1)
				return
			}
		}
	}
}

// WaitLeftovers returns the leftovers that a test has set for the mark.
func (f *fakeMachine) WaitLeftovers(ctx context.Context, mark string, limit time.Duration, found func(node.Leftover)) ([]node.Leftover, error) {
	f.mu.Lock()
	left := f.leftovers[mark]
	f.mu.Unlock()
	for _, l := range left {
		found(l)
	}
	return left, ctx.Err()
}

func (f *fakeMachine) MountAt(path string) (*node.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range slices.Backward(f.table) {
		if m.Mountpoint == path {
			return &m, nil
		}
		if strings.HasPrefix(path, m.Mountpoint+"/") {
			return nil, nil // it hides all earlier ones
		}
	}
	return nil, nil
}

func (f *fakeMachine) MountsOn(path string) (on []node.Mount, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.table {
		if m.Mountpoint == path {
			on = append(on, m)
		}
	}
	return on, nil
}

// HiddenBy returns a mount that was made later at the same path or above it.
func (f *fakeMachine) HiddenBy(m node.Mount) (*node.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, later := range slices.Backward(f.table) {
		if later.ID == m.ID {
			return nil, nil
		}
		if later.Mountpoint == m.Mountpoint || strings.HasPrefix(m.Mountpoint, later.Mountpoint+"/") {
			return &later, nil
		}
	}
	return nil, fs.ErrNotExist
}

func (f *fakeMachine) BlockDevice(path string) (node.Device, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path == testDevice && f.lvs[testVG+"/"+testLV] {
		return node.Device{Major: 253, Minor: 7}, nil
	}
	return node.Device{}, node.ErrNoDevice
}

func (f *fakeMachine) BoundDevice(m node.Mount) (node.Device, error) {
	if m.Root == "/dm-7" {
		return node.Device{Major: 253, Minor: 7}, nil
	}
	return node.Device{}, node.ErrNoDevice
}

func (f *fakeMachine) DMName(d node.Device) (string, error) {
	if d == (node.Device{Major: 253, Minor: 7}) {
		return cmp.Or(f.dmName, strings.TrimPrefix(testDevice, "/dev/mapper/")), nil
	}
	return "", nil
}

func (f *fakeMachine) Holders(context.Context, node.Mount, int) ([]node.Holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holders, nil
}

func (f *fakeMachine) Users(context.Context, node.Mount, int) ([]node.Holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.users), f.fail["users"]
}

// SignalUser logs the signal. The outcome is that of f.signalled.
func (f *fakeMachine) SignalUser(_ context.Context, _ node.Mount, h node.Holder, sig unix.Signal, rule node.SignalRule) (node.Holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.users, func(u node.Holder) bool { return u.Process() == h.Process() }) {
		return h, node.ErrNoUser
	}
	if h.UID < rule.MinUID {
		return h, &node.ProtectedError{Reason: "it belongs to root"}
	}
	f.note("%v to %d of users from %d, not %s", unix.SignalName(sig), h.PID, rule.MinUID, rule.Mark)
	if f.signalled != nil {
		f.signalled(h.PID, sig)
	}
	return h, f.fail["signal"]
}

// leave removes a process that uses the mount. When none is left, umount succeeds.
func (f *fakeMachine) leave(pid int) {
	f.users = slices.DeleteFunc(f.users, func(h node.Holder) bool { return h.PID == pid })
	if len(f.users) == 0 {
		delete(f.fail, "umount")
	}
}

func (f *fakeMachine) WaitExit(ctx context.Context, list []node.Process, limit time.Duration) []node.Process {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		f.mu.Lock()
		running := slices.DeleteFunc(slices.Clone(list), func(p node.Process) bool {
			return !slices.ContainsFunc(f.users, func(h node.Holder) bool { return h.Process() == p })
		})
		f.mu.Unlock()
		if len(running) == 0 || ctx.Err() != nil {
			return running
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (f *fakeMachine) MinUID() (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return 1000, f.fail["login.defs"]
}

func (f *fakeMachine) DeviceHolders(_ context.Context, d node.Device, _ int) ([]node.Holder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("holders of %v", d)
	return f.deviceHolders, f.fail["device holders"]
}

// LookupHost resolves the name of one server.
func (f *fakeMachine) LookupHost(_ context.Context, host string) ([]string, error) {
	if host == "mgs.example.org" {
		return []string{"192.0.2.1"}, nil
	}
	return nil, errors.New("no such host")
}

// ResolveTarget resolves the link that a test has set.
func (f *fakeMachine) ResolveTarget(path string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rest, ok := strings.CutPrefix(path, f.link[0]); ok && f.link[0] != "" {
		return f.link[1] + rest, f.fail["resolve"]
	}
	return path, f.fail["resolve"]
}

func (f *fakeMachine) MissingTargets(path string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.missing
}

func (f *fakeMachine) MakeDirectory(path string) ([]string, error) { return f.make("mkdir", path) }
func (f *fakeMachine) MakeFile(path string) ([]string, error)      { return f.make("touch", path) }

func (f *fakeMachine) make(verb, path string) ([]string, error) {
	if f.making != nil {
		f.making()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("%s %s", verb, path)
	return []string{path}, f.fail[verb]
}

func (f *fakeMachine) RemoveTarget(path string, created []string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("remove %s %v", path, created)
	return f.stays, f.fail["remove"]
}

func (f *fakeMachine) ChownMount(m node.Mount, uid, gid uint32) error {
	return fakeCaller{f, f}.ChownMount(m, uid, gid)
}

func (f *fakeMachine) WriteFileIn(dir, name string, data []byte, uid, gid uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("write %s/%s %d:%d %s", dir, name, uid, gid, data)
	return f.fail["write"]
}

func (f *fakeMachine) LockVG(ctx context.Context, _ string) (func(), error) {
	return func() {}, ctx.Err()
}

func (f *fakeMachine) LVs(ctx context.Context, vg string, limit time.Duration) ([]node.LV, error) {
	return fakeCaller{f, f}.LVs(ctx, vg, limit)
}

func (f *fakeMachine) volumes(vg string) []node.LV {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail["no lv"] != nil {
		return nil
	}
	attr := "-wi-------"
	if f.lvs[vg+"/"+testLV] {
		attr = "-wi-a-----"
	}
	return []node.LV{{VG: vg, Name: testLV, Attr: attr}, {VG: vg, Name: "other", Attr: "-wi"}}
}

func (f *fakeMachine) HasVG(ctx context.Context, vg string, limit time.Duration) (bool, error) {
	return fakeCaller{f, f}.HasVG(ctx, vg, limit)
}

func (f *fakeMachine) WaitVG(ctx context.Context, vg string, _, _ time.Duration) error {
	_, err := f.HasVG(ctx, vg, 0)
	return err
}

func (f *fakeMachine) WaitDevice(_ context.Context, path string, _ time.Duration) error {
	if _, err := f.BlockDevice(path); err != nil {
		return fmt.Errorf("timeout waiting for device %s: %w", path, err)
	}
	return nil
}

func (f *fakeMachine) Namespaces(context.Context, time.Duration) ([]node.Namespace, error) {
	return []node.Namespace{{Device: "/dev/nvme0n12", NQN: "nqn.2014-08.org.example:disk0", NSID: 12}}, nil
}

func (f *fakeMachine) RescanNVMe(_ context.Context, nqns []string, _ time.Duration) error {
	f.mu.Lock()
	f.note("rescan %s", strings.Join(nqns, " "))
	hook := f.rescan
	f.mu.Unlock()
	if hook != nil {
		hook(f)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fail["rescan"]
}

func (f *fakeMachine) WaitNamespaces(_ context.Context, want []node.Namespace, _, _ time.Duration) ([]node.Namespace, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail["namespaces"] != nil {
		return want, nil
	}
	return nil, nil
}
