package clientmount

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The kinds of journal records, with their stable MESSAGE_ID. The meaning of an id never
// changes, because sites search and alert by it.
var (
	eventStarted       = daemon.Event{ID: "6b1c3d5e7f904a2b8c4d6e8f0a1b3c17", Name: "started"}
	eventConfigRefused = daemon.Event{ID: "92a4b6c8d0e14f3a8b5c7d9e1f2a4b18", Name: "config-refused"}
	eventNamespace     = daemon.Event{ID: "bc1d37a0c5a84f7f8245030973b3a97d", Name: "mount-namespace"}

	eventReady     = daemon.Event{ID: "3f1b52c94d7a4e0fb3a86c1de9f2075a", Name: "ready"}
	eventMounted   = daemon.Event{ID: "8f0e6d0b5f0e4c0c9d1d1c1f4f3f6a01", Name: "mounted"}
	eventUnmounted = daemon.Event{ID: "5b7a4f0d3f8e4a5e8a1f6b2c7d9e0a02", Name: "unmounted"}
	eventFailed    = daemon.Event{ID: "c1d2f7a86a3b4f0fb4f5a9e3d6c80b03", Name: "failed"}
	eventBusy      = daemon.Event{ID: "2e9c7b1fd0a54c4d8f3e6a7b9c0d1e04", Name: "busy"}
	eventRefused   = daemon.Event{ID: "7d3a5e9b8c1f4d2ea6b0c9f8e7d6a505", Name: "refused"}
	eventOrphan    = daemon.Event{ID: "a4b8c2d6e0f14a3b8c7d9e5f1a2b3c06", Name: "orphan"}
	eventStuck     = daemon.Event{ID: "f1e2d3c4b5a64978867a5b4c3d2e1f07", Name: "stuck"}
	eventHook      = daemon.Event{ID: "3c5e7a9b1d2f4e6a8b0c2d4e6f8a0b08", Name: "hook"}
	eventStep      = daemon.Event{ID: "9a8b7c6d5e4f4a3b9c1d0e2f3a4b5c09", Name: "step"}
	eventRescan    = daemon.Event{ID: "6f5e4d3c2b1a4f0e9d8c7b6a5f4e3d10", Name: "rescan"}
	eventDiagnosis = daemon.Event{ID: "b0c1d2e3f4a54b6c8d7e9f0a1b2c3d11", Name: "diagnosis"}
	eventLeftover  = daemon.Event{ID: "d4c3b2a1f0e94d8c9b7a6f5e4d3c2b12", Name: "leftover"}
	eventRecord    = daemon.Event{ID: "1a2b3c4d5e6f4a7b8c9d0e1f2a3b4c13", Name: "record"}
	eventAPI       = daemon.Event{ID: "e7f6a5b4c3d24e1f8a9b0c7d6e5f4a14", Name: "api"}
	eventPanic     = daemon.Event{ID: "0f1e2d3c4b5a4697887a6b5c4d3e2f15", Name: "clientmount-panic"}
	eventMetrics   = daemon.Event{ID: "79d98dbfbbd24918a96498797ef22bf9", Name: "metrics"}
	eventServers   = daemon.Event{ID: "4d5e6f7a8b9c4d0e9f1a2b3c4d5e6f16", Name: "servers"}

	eventSignalled    = daemon.Event{ID: "208533cf941a4b63b732d9d164e13f41", Name: "signalled"}
	eventNotSignalled = daemon.Event{ID: "a7c1513fa1c84f0c85ec05a1f6d9b742", Name: "not-signalled"}
)

// Events returns all kinds of journal records. Tests use it to check that the
// documentation and the message catalogue are complete.
func Events() []daemon.Event {
	return []daemon.Event{
		eventStarted, eventConfigRefused, eventNamespace,
		eventReady, eventMounted, eventUnmounted, eventFailed, eventBusy, eventSignalled, eventNotSignalled, eventRefused, eventOrphan, eventStuck, eventHook,
		eventStep, eventRescan, eventDiagnosis, eventLeftover, eventRecord, eventAPI, eventPanic, eventServers, eventMetrics,
	}
}

// hintFor returns the next action for the reader of the log, by the most specific cause
// of the failure.
func hintFor(e *dws.ResourceError, cause error) string {
	command := (*node.CommandError)(nil)
	conflict := (*conflictError)(nil)
	switch {
	case errors.As(cause, &conflict) && conflict.gone:
		return "a file system of the deleted ClientMount is still mounted: unmount it when its job has finished, or set mount.orphans = \"unmount\""
	case errors.As(cause, &conflict):
		return "clientmountd mounts it as soon as the other ClientMount is unmounted; jobs that run at the same time need different mount paths"
	case errors.Is(cause, errUnreadable):
		return "clientmountd takes no action for this ClientMount until the record is repaired or removed, because something may be mounted; follow the steps in the error"
	case errors.Is(cause, plan.ErrOutsideRoots):
		return "if the storage profiles of this site set $MOUNT_PATH to another directory, add it to mount.roots in a file in /etc/clientmountd/config.d " +
			"and restart clientmountd; otherwise correct mountPath in the ClientMount"
	case e.Severity == dws.Fatal:
		return "correct the ClientMount or its storage profile: the job cannot use this storage, and retries fail the same way"
	case hangs(cause):
		return "clientmountd starts no other command for this ClientMount until this one exits: check the device (dmesg, nvme list), the server and the lock manager (dlm_tool ls)"
	case errors.Is(cause, exec.ErrNotFound):
		return "install the missing program on this node, or add it to the daemon's PATH: vgs, lvs, vgchange and lvchange are in lvm2, nvme is in nvme-cli"
	case errors.Is(cause, errNoLV):
		return "LVM does not see the volume: check that the rabbit attached its NVMe namespaces to this node (nvme list), and that the volume group exists on the rabbit"
	case node.IsBusy(cause):
		return "clientmountd unmounts the file system as soon as the holders named in the error have released it; no data is lost"
	case node.IsInUse(cause):
		return "clientmountd deactivates the volume as soon as the holders named in the error have released it; no data is lost"
	case errors.Is(cause, safepath.ErrSymlink):
		return "clientmountd follows a symbolic link in a mount path only if root owns it and only root can write to its directory (a sticky directory such as /tmp is not enough): recreate it that way, or use the path that it points to"
	case errors.Is(cause, safepath.ErrUnsafe):
		return "every directory above the mount path must be a real directory that only root can write to: correct the directory, or use another mount path"
	case errors.As(cause, &command) && command.TimedOut:
		return "the command took longer than mount.command_timeout (a hook: mount.hook_timeout) and was killed; raise the limit if the command was only slow"
	case kube.IsNotFound(cause):
		return "the pinned storage profile of the workflow does not exist (kubectl get nnfstorageprofiles -A); clientmountd retries"
	case kube.IsForbidden(cause):
		return "the account of this daemon lacks a permission: check the role nnf-clientmount and its binding"
	}
	return "clientmountd retries; status.error of the ClientMount has the same text"
}

// apiState handles a change of the connection to the API server. It logs each kind of
// failure once.
func (c *Controller) apiState(s kube.State) {
	c.do(func() {
		was := c.api
		if !s.Connected && !was.Connected && was.LastError != nil {
			s.Since = was.Since // it is the same outage
		}
		c.api = s
		if c.state != nil && c.state.setAPI(s) {
			c.saveState()
		}
		c.metrics.apiState(was, s)
		switch {
		case s.Connected && !was.Connected && was.LastError != nil:
			c.resume()
			c.o.Log.Info("API server answers again", "down", time.Since(was.Since).Round(time.Millisecond), daemon.EventID(eventAPI))
		case !s.Connected && s.LastError != nil && (was.Connected || was.LastError == nil || !kube.SameKind(was.LastError, s.LastError)):
			c.o.Log.Warn("the watch failed; mounts are not affected; retrying", "error", s.LastError, daemon.EventID(eventAPI))
		}
	})
}

// tokenChanged handles a change of the state of the token.
func (c *Controller) tokenChanged(t kube.TokenState) {
	c.do(func() {
		if c.state != nil {
			c.state.setToken(t)
			c.saveState()
		}
		c.metrics.tokenState(t)
	})
}

// saveState saves the state of the daemon for the commands that report about the node.
func (c *Controller) saveState() {
	if err := c.state.save(c.o.Records.runtime); err != nil {
		c.o.Log.Debug("cannot save the state for reports", "error", err, daemon.EventID(eventRecord))
	}
}

// publishLine publishes the status line if it has changed.
func (c *Controller) publishLine() {
	line := c.summary()
	if line == c.line || c.o.Status == nil {
		return
	}
	c.line = line
	c.o.Status(line)
}

// apiTexts are the states of the API server in the status line.
var apiTexts = map[string]string{
	systemd.APIAnswers: "; API server answers", systemd.APISilent: "; API server has not answered", systemd.APIConnecting: "; connecting to the API server",
}

// apiOf returns the state of the API server from the status line of a running
// daemon, one of package systemd's API constants; "" if the line has none.
func apiOf(line string) string {
	found, first := "", len(line)
	for state, text := range apiTexts {
		if at := strings.Index(line, text); at >= 0 && at < first { // the error that follows may contain any text
			found, first = state, at
		}
	}
	return found
}

// summary returns the status line, as systemctl status shows it.
func (c *Controller) summary() string {
	var mounts, objects, failing, busy, orphans int
	for _, o := range c.objects {
		if o.orphan != nil {
			orphans++
			continue
		}
		if o.newest == nil {
			continue
		}
		objects++
		switch {
		case o.running:
			busy++
		case o.last.failed:
			failing++
		case o.newest.Spec.DesiredState == dws.Mounted && !o.last.finished:
			mounts += len(o.newest.Spec.Mounts)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s ready for %s", count(mounts, "mount"), count(objects, "ClientMount"))
	for _, part := range []struct {
		n    int
		text string
	}{{busy, "in progress"}, {failing, "failing"}, {orphans, "orphaned"}} {
		if part.n > 0 {
			fmt.Fprintf(&b, ", %d %s", part.n, part.text)
		}
	}
	switch {
	case c.api.Connected:
		b.WriteString(apiTexts[systemd.APIAnswers])
	case c.api.LastError != nil:
		fmt.Fprintf(&b, "%s since %s: %v", apiTexts[systemd.APISilent], c.api.Since.Format(time.RFC3339), c.api.LastError)
	default:
		b.WriteString(apiTexts[systemd.APIConnecting])
	}
	return text.Shorten(b.String(), 512)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
