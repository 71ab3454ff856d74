package clientmountd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// waitSettings has the values of the flags of wait.
type waitSettings struct {
	workflow, clientMount string
	state                 string
	count                 int
	limit                 time.Duration
}

// States to wait for.
const (
	forMounted   = "mounted"
	forUnmounted = "unmounted"
)

var waitCommand = &command{
	Name: "wait", Short: "wait until the mounts of a workflow or ClientMount are mounted or unmounted",
	Long: `For prologs and epilogs. It uses no CPU time while it waits.

mounted: at least --count ClientMounts have arrived on this node, and everything that they contain is mounted. unmounted: everything that has arrived is unmounted; ` +
		`this includes a workflow that has never arrived. Neither is reached while a record cannot be read, because it may belong to the workflow.

If the ClientMount is refused, because it or its storage profile is invalid, the exit code is 1. After --timeout it is 5. ` +
		`The last line on standard error then has the reason, or the mount that is the furthest from its desired state. ` +
		`If the state of the node cannot be read, the exit code is 3.`,
	Examples: []cli.Example{
		{Comment: "In a prolog, wait until the storage of the job is mounted:", Lines: "clientmountd wait --workflow fluxjob-123 --for mounted --timeout 5m"},
		{Comment: "In an epilog, wait until it is unmounted:", Lines: "clientmountd wait --workflow fluxjob-123 --for unmounted --timeout 10m"},
	},
	Flags: waitFlags, Run: runWait,
}

func waitFlags(f *pflag.FlagSet, v *call) {
	f.StringVar(&v.wait.workflow, "workflow", "", "wait for all ClientMounts of the workflow `NAME`")
	f.StringVar(&v.wait.clientMount, "clientmount", "", "wait for the ClientMount `NAME`")
	f.StringVar(&v.wait.state, "for", "", "wait until they are in this `STATE`: mounted or unmounted")
	cli.Words(f, "for", forMounted, forUnmounted)
	f.IntVar(&v.wait.count, "count", 1, "with --for mounted, wait until `NUMBER` ClientMounts have arrived")
	f.DurationVar(&v.wait.limit, "timeout", 10*time.Minute, "wait no longer than `DURATION`; 0s: check once")
}

// patience is how long reading the state of the node may take after the time limit.
const patience = time.Second

func runWait(ctx context.Context, v *call) error {
	w := &v.wait
	switch {
	case (w.workflow == "") == (w.clientMount == ""):
		return usage.Errorf("wait needs either --workflow or --clientmount")
	case w.state == "":
		return usage.Errorf("wait needs --for mounted or --for unmounted")
	case w.count < 1:
		return usage.Errorf("--count must be at least 1")
	}
	if err := errors.Join(cli.CheckWord("for", w.state, []string{forMounted, forUnmounted}), notNegative("timeout", w.limit)); err != nil {
		return err
	}
	if err := needRoot(readRecords); err != nil {
		return &exitError{ExitUnknown, err}
	}
	directory := v.runtimeDirectory()
	ctx, stop := v.Interruptible(ctx, "")
	defer stop(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, w.limit+patience, node.ErrTooLate)
	defer cancel()
	var last *mountstate.Mounts
	reason := "the state of the node cannot be read"
	err := new(node.Node).WaitFiles(ctx, clientmount.StateDirectories(directory), w.limit, func() (bool, error) {
		doc, err := readMounts(ctx, directory)
		if err != nil {
			return false, &exitError{ExitUnknown, err}
		}
		last = w.selection(doc)
		var done bool
		done, reason, err = w.reached(last)
		return done, err
	})
	if v.output == formatJSON && last != nil {
		if failed := text.JSON(v.Stdout, last); failed != nil {
			return failed
		}
	}
	if errors.Is(err, node.ErrTooLate) {
		return &exitError{ExitTimeout, fmt.Errorf("not %s within %v: %s", w.state, w.limit, reason)}
	}
	return cli.Interrupted(ctx, err)
}

// selection returns a document with the mounts of the workflow or ClientMount only.
func (w *waitSettings) selection(doc *mountstate.Mounts) *mountstate.Mounts {
	d := *doc
	d.Mounts = slices.DeleteFunc(slices.Clone(doc.Mounts), func(m mountstate.Mount) bool {
		return w.workflow != "" && m.Workflow != w.workflow || w.clientMount != "" && m.ClientMount != w.clientMount
	})
	return &d
}

// reached reports whether the mounts of a document are in the desired state, and otherwise what
// prevents it. The error is for mounts that will never be in it.
func (w *waitSettings) reached(doc *mountstate.Mounts) (done bool, reason string, err error) {
	desired, phase := mountstate.Mounted, mountstate.PhaseMount
	if w.state == forUnmounted {
		desired, phase = mountstate.Unmounted, mountstate.PhaseUnmount
	}
	var worst *mountstate.Mount
	arrived := map[string]bool{}
	for i := range doc.Mounts {
		m := &doc.Mounts[i]
		arrived[m.UID] = true
		if m.State == desired {
			continue
		}
		if m.Failure != nil && m.Failure.Kind == mountstate.FailureRefused && m.Phase == phase {
			return false, "", errors.New(m.Sentence(doc.Time))
		}
		if worst == nil || mountstate.CompareUrgency(m, worst) < 0 {
			worst = m
		}
	}
	switch missing := w.count - len(arrived); {
	case worst != nil:
		reason = worst.Sentence(doc.Time)
	case len(doc.Unreadable) > 0:
		reason = doc.Unreadable[0]
	case w.state == forMounted && missing > 0:
		reason = w.missing(len(arrived))
	default:
		return true, "", nil
	}
	if daemon := doc.Daemon.Sentence(doc.Time); daemon != "" {
		reason += "; " + daemon
	}
	return false, reason, nil
}

// missing returns that too few ClientMounts have arrived.
func (w *waitSettings) missing(arrived int) string {
	switch {
	case arrived > 0:
		return fmt.Sprintf("only %d of %d ClientMounts have arrived on this node", arrived, w.count)
	case w.workflow != "":
		return "no ClientMount of workflow " + w.workflow + " has arrived on this node"
	}
	return "ClientMount " + w.clientMount + " has not arrived on this node"
}
