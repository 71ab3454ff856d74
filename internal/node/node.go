// Package node is what the daemons can see and do on this machine: run a
// command, read the mount table, ask LVM and NVMe, wait for a device, make and
// remove mount targets, find what keeps a mount busy.
//
// It must not know Kubernetes, the objects of the API, or why a step is done:
// callers decide what is done, this package does it without harm. Local users
// are taken to be hostile: no text of theirs reaches a shell, no symlink of
// theirs is followed, all input and output is bounded.
package node

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

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

// Caller is on whose behalf a Node works.
type Caller struct {
	// Context ends the methods that take no context of their own; nil means that
	// nothing does.
	Context context.Context
	// Exec runs all programs, and the system calls that may block (see RunChild).
	Exec Runner
	// Limit is the time limit of each of these system calls; 0 means none.
	Limit time.Duration
}

// For returns the same machine, working on behalf of c: every program that one of
// its methods starts is started by c.Exec.
func (n *Node) For(c Caller) *Node {
	if c.Exec == nil {
		c.Exec = n.runner()
	}
	return &Node{Root: n.Root, Exec: c.Exec, Log: n.Log, statx: n.statx, caller: c, machine: n.shared()}
}

// shared returns the Node that holds what all callers share.
func (n *Node) shared() *Node {
	if n.machine != nil {
		return n.machine
	}
	return n
}

// Run runs c by the Runner of this Node.
func (n *Node) Run(ctx context.Context, c Command) (Result, error) { return n.runner().Run(ctx, c) }

func (n *Node) runner() Runner {
	if n.Exec != nil {
		return n.Exec
	}
	return &Exec{Log: n.Log}
}

func (n *Node) context() context.Context {
	if n.caller.Context != nil {
		return n.caller.Context
	}
	return context.Background()
}

func (n *Node) log() *slog.Logger {
	if n.Log != nil {
		return n.Log
	}
	return slog.New(slog.DiscardHandler)
}
