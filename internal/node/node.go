// Package node reads and changes the state of this machine: it runs commands, reads the
// mount table, queries LVM and NVMe, waits for devices, creates and removes mount
// targets, and finds what keeps a mount busy.
//
// It does not depend on Kubernetes, the objects of the API, or the reason for a step.
// Local users are assumed to be hostile: their texts never reach a shell, their symlinks
// are not followed, and all input and output is bounded.
package node

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Node is one machine. The zero value is the machine on which this program runs. It is
// safe for concurrent use and must not be copied after first use.
type Node struct {
	// Root is the prefix of every kernel path (/proc, /sys, /dev), so that tests can use
	// trees of plain files. It is empty in production. Mount targets are never prefixed.
	Root string
	// Exec runs the programs; nil means &Exec{}.
	Exec Runner
	// Log gets problems that do not make a call fail; nil means no log.
	Log *slog.Logger

	// statx is statx(2), unless a test replaces it.
	statx func(dir int, name string, st *unix.Statx_t) error
	// pidfd is pidfd_open(2), unless a test replaces it.
	pidfd func(pid int) (int, error)

	caller   Caller
	machine  *Node    // the Node on which For was called; nil for that Node
	locks    Locks    // by volume group
	messages messages // of the LVM tools

	mu      sync.Mutex
	waiting map[int64]bool // processes for which a search still waits, see await
}

// kernel returns the kernel path p below Root.
func (n *Node) kernel(p string) string { return n.Root + p }

// LookupHost returns the addresses of a host name from the resolver of this machine.
func (n *Node) LookupHost(ctx context.Context, host string) ([]string, error) {
	return net.DefaultResolver.LookupHost(ctx, host)
}

// Caller describes on whose behalf a Node works.
type Caller struct {
	// Context ends methods that have no context parameter; nil means that they run to
	// their end.
	Context context.Context
	// Exec runs all programs, and the system calls that may block (see RunChild).
	Exec Runner
	// Limit is the time limit of each of these system calls; 0 means no limit.
	Limit time.Duration
}

// For returns the same machine on behalf of c: all its methods start programs with
// c.Exec.
func (n *Node) For(c Caller) *Node {
	if c.Exec == nil {
		c.Exec = n.runner()
	}
	return &Node{Root: n.Root, Exec: c.Exec, Log: n.Log, statx: n.statx, caller: c, machine: n.shared()}
}

// shared returns the Node with the state that all callers share.
func (n *Node) shared() *Node {
	if n.machine != nil {
		return n.machine
	}
	return n
}

// Run runs c with the Runner of this Node.
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
