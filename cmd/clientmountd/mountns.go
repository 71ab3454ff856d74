package main

import (
	"context"
	"errors"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

// unseen is a start that is refused because nobody would see the mounts.
type unseen struct{ text, hint string }

func (e *unseen) Error() string { return e.text + ": " + e.hint }

// checkNamespace refuses to start where the host would not see what is mounted
// here: every mount would succeed, and every job would find an empty folder. A
// look that fails is refused as well, because settings of a unit that hide
// process 1 make a mount namespace, too. root is put before /proc, for tests.
func checkNamespace(mode, allowed, root string) error {
	if mode != "real" || allowed == "any" {
		return nil
	}
	const way = `; a container that passes its mounts on to the host needs daemon.mount_namespace = "any"`
	same, detail, err := daemon.InHostMountNamespace(root)
	switch {
	case err != nil:
		return &unseen{"it is not known whether the host would see the mounts made here", err.Error() + way}
	case !same:
		return &unseen{"the host would not see the mounts made here: this is a mount namespace of its own", detail + way}
	}
	return nil
}

// refuse says why there is no start and returns the exit code. What has a kind of
// record, and so an explanation in the journal, is said by the log.
func (s *server) refuse(ctx context.Context, err error) int {
	if e, ok := errors.AsType[*unseen](err); ok {
		s.notifier.Status(e.text)
		s.log.Error(e.text, "hint", e.hint, daemon.EventID(clientmount.EventNamespace))
		s.logOut.Close()
		return daemon.ExitFailure
	}
	return s.v.Result(ctx, err)
}
