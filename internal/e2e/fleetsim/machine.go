package main

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// machine is a compute node in memory: one logical volume and the mount table. Commands
// take no time, so that the figures show the API server and the protocol. It implements
// clientmount.Host.
type machine struct {
	mu     sync.Mutex
	active bool // the volume
	table  []node.Mount
	mounts int  // mount commands that succeeded
	broken bool // mount commands fail
}

// machineFor is the machine on behalf of a caller, whose runner starts the programs. It
// implements clientmount.Machine.
type machineFor struct {
	*machine
	exec node.Runner
}

var (
	_ clientmount.Host    = (*machine)(nil)
	_ clientmount.Machine = machineFor{}
)

// The volume of the profile. Each machine has its own one.
var vgName, lvName = fixture.VolumeNames(fixture.OwnerUID, "0", 0, true)

var device = node.Device{Major: 253, Minor: 7}

// setBroken makes the mount commands fail or succeed.
func (m *machine) setBroken(broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = broken
}

// state returns the number of mounts, whether the volume is active, and the number of
// mount commands that have succeeded so far.
func (m *machine) state() (mounted int, active bool, mounts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.table), m.active, m.mounts
}

// For implements clientmount.Host.
func (m *machine) For(c node.Caller) clientmount.Machine { return machineFor{m, c.Exec} }

// WaitLeftovers implements clientmount.Host.
func (m *machine) WaitLeftovers(context.Context, string, time.Duration, func(node.Leftover)) ([]node.Leftover, error) {
	return nil, nil
}

func (m machineFor) Run(ctx context.Context, c node.Command) (node.Result, error) {
	return m.exec.Run(ctx, c)
}

// Run applies the effect of a command. It fails if a real one would fail.
func (m *machine) Run(_ context.Context, c node.Command) (node.Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(text string) (node.Result, error) {
		return node.Result{Stderr: text}, &node.CommandError{Line: c.String(), Stderr: text, Err: node.ExitStatus(32)}
	}
	if len(c.Argv) == 0 {
		return fail("the simulation has no shell")
	}
	last := c.Argv[len(c.Argv)-1]
	i := slices.IndexFunc(m.table, func(t node.Mount) bool { return t.Mountpoint == last })
	switch program := filepath.Base(c.Argv[0]); program {
	case "lvs", "vgs", "vgchange":
	case "lvchange":
		m.active = !slices.Contains(c.Argv, "n")
	case "mount":
		if m.broken || !m.active || i >= 0 {
			return fail("mount: " + last + ": simulated failure")
		}
		m.mounts++
		m.table = append(m.table, node.Mount{
			ID: 100 + m.mounts, Mountpoint: last, Source: c.Argv[len(c.Argv)-2], FSType: typeOf(c.Argv), Root: "/", Major: int(device.Major), Minor: int(device.Minor),
		})
	case "umount":
		if i < 0 {
			return fail("umount: " + last + ": not mounted")
		}
		m.table = slices.Delete(m.table, i, i+1)
	default:
		return fail(program + ": not simulated")
	}
	return node.Result{}, nil
}

// typeOf returns the file system type of a mount command.
func typeOf(argv []string) string {
	if i := slices.Index(argv, "-t"); i >= 0 && i+1 < len(argv) {
		return argv[i+1]
	}
	return ""
}

// find returns a copy of the first mount that matches, or nil.
func (m *machine) find(match func(node.Mount) bool) *node.Mount {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.IndexFunc(m.table, match); i >= 0 {
		found := m.table[i]
		return &found
	}
	return nil
}

func (m *machine) MountAt(path string) (*node.Mount, error) {
	return m.find(func(t node.Mount) bool { return t.Mountpoint == path }), nil
}

func (m *machine) MountsOn(path string) ([]node.Mount, error) {
	if t, _ := m.MountAt(path); t != nil {
		return []node.Mount{*t}, nil
	}
	return nil, nil
}

func (m *machine) HiddenBy(want node.Mount) (*node.Mount, error) {
	if m.find(func(t node.Mount) bool { return t.ID == want.ID }) == nil {
		return nil, fs.ErrNotExist
	}
	return nil, nil
}

func (m *machine) BoundDevice(node.Mount) (node.Device, error) {
	return node.Device{}, node.ErrNoDevice
}

func (m *machine) BlockDevice(string) (node.Device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.active {
		return node.Device{}, node.ErrNoDevice
	}
	return device, nil
}

func (m *machine) DMName(node.Device) (string, error) {
	return strings.ReplaceAll(vgName, "-", "--") + "-" + strings.ReplaceAll(lvName, "-", "--"), nil
}

func (m *machine) WaitDevice(_ context.Context, path string, _ time.Duration) error {
	_, err := m.BlockDevice(path)
	return err
}

// LVs runs lvs, as the real node does, so that the limits for commands apply.
func (m machineFor) LVs(ctx context.Context, vg string, limit time.Duration) ([]node.LV, error) {
	if _, err := m.Run(ctx, node.Command{Argv: []string{"lvs", vg}, Timeout: limit}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	attr := "-wi-------"
	if m.active {
		attr = "-wi-a-----"
	}
	return []node.LV{{VG: vg, Name: lvName, Attr: attr}}, nil
}

func (m machineFor) HasVG(ctx context.Context, vg string, limit time.Duration) (bool, error) {
	_, err := m.Run(ctx, node.Command{Argv: []string{"vgs", vg}, Timeout: limit})
	return err == nil, err
}

func (m machineFor) WaitVG(ctx context.Context, vg string, _, limit time.Duration) error {
	_, err := m.HasVG(ctx, vg, limit)
	return err
}

// What follows never fails and has no effect on the simulated node.

func (m *machine) LockVG(context.Context, string) (func(), error) { return func() {}, nil }
func (m *machine) ResolveTarget(path string) (string, error)      { return path, nil }
func (m *machine) MissingTargets(path string) []string            { return []string{path} }
func (m *machine) MakeDirectory(path string) ([]string, error)    { return []string{path}, nil }
func (m *machine) MakeFile(path string) ([]string, error)         { return []string{path}, nil }
func (m *machine) RemoveTarget(string, []string) ([]string, error) {
	return nil, nil
}
func (m *machine) ChownMount(node.Mount, uint32, uint32) error { return nil }
func (m *machine) WriteFileIn(string, string, []byte, uint32, uint32) error {
	return nil
}
func (m *machine) Holders(context.Context, node.Mount, int) ([]node.Holder, error) { return nil, nil }
func (m *machine) DeviceHolders(context.Context, node.Device, int) ([]node.Holder, error) {
	return nil, nil
}
func (m *machine) Users(context.Context, node.Mount, int) ([]node.Holder, error) { return nil, nil }
func (m *machine) SignalUser(_ context.Context, _ node.Mount, h node.Holder, _ unix.Signal, _ node.SignalRule) (node.Holder, error) {
	return h, node.ErrNoUser
}
func (m *machine) WaitExit(context.Context, []node.Process, time.Duration) []node.Process {
	return nil
}
func (m *machine) MinUID() (uint32, error)                                   { return 1000, nil }
func (m *machine) LookupHost(context.Context, string) ([]string, error)      { return nil, nil }
func (m *machine) RescanNVMe(context.Context, []string, time.Duration) error { return nil }
func (m *machine) Namespaces(context.Context, time.Duration) ([]node.Namespace, error) {
	return nil, nil
}
func (m *machine) WaitNamespaces(context.Context, []node.Namespace, time.Duration, time.Duration) ([]node.Namespace, error) {
	return nil, nil
}
