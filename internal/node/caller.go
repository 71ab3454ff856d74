package node

import (
	"context"
	"log/slog"
	"time"
)

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
