// Package node is what the daemons can see and do on this machine: run a
// command, read the mount table, ask LVM and NVMe, wait for a device, make and
// remove mount targets, find out who keeps a mount busy.
//
// It must not know Kubernetes, the objects of the API, or why a step is done:
// callers say what, this package says how it is done without harm. Local users
// are taken to be hostile: no text of theirs reaches a shell, no symlink of
// theirs is followed, all input and output is bounded.
package node

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Node is one machine. The zero value is the machine that we run on. It is safe
// for use by many goroutines and must not be copied after first use.
type Node struct {
	// Root is put in front of every kernel path (/proc, /sys, /dev), so that
	// tests run on trees of plain files. It is empty in production. Mount targets
	// are never prefixed.
	Root string
	// Exec runs the programs; nil means &Exec{}.
	Exec Runner
	// Log gets what went wrong without making a call fail; nil means none.
	Log *slog.Logger

	// statx is statx(2), unless a test replaces it.
	statx func(dir int, name string, st *unix.Statx_t) error

	caller   Caller
	machine  *Node    // the one that For was called on; nil on that one
	locks    Locks    // by volume group
	messages messages // of the LVM tools

	mu      sync.Mutex
	waiting map[int64]bool // processes that a search waits for, see await
}

// kernel returns the place of the kernel path p, below Root.
func (n *Node) kernel(p string) string { return n.Root + p }

// LookupHost returns the addresses of a host name, as the resolver of this machine
// has them.
func (n *Node) LookupHost(ctx context.Context, host string) ([]string, error) {
	return net.DefaultResolver.LookupHost(ctx, host)
}
