package dmctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

var doctorCommand = &command{
	Name: "doctor", Short: "show what prevents the job from copying, and what to do",
	Long: `The command checks the environment, the socket, the version of the daemon, the
workflow, each mount of its storage on this node, the destinations and the limits. It
prints one result for each: OK, WARN (works, but not as it should), FAIL, or SKIP (not
checked, because an earlier check failed), with a hint. It starts no copy, changes
nothing, and does not access the storage. With --quiet, the text has no OK.

The exit code is 0 if no check has failed, including with warnings, and 1 otherwise.`,
	Examples: []cli.Example{
		{Comment: "In a job: find out why a copy is refused.", Lines: Name + " doctor"},
		{Comment: "Outside the job, on one of its nodes:", Lines: Name + " doctor --workflow job7"},
	},
	Run: withDaemon(runDoctor),
}

// The checks, in the order in which they run.
const (
	checkEnvironment  = "environment"
	checkSocket       = "socket"
	checkVersion      = "version"
	checkWorkflow     = "workflow"
	checkMount        = "mount" // one result for each mount
	checkDestinations = "destinations"
	checkLimits       = "limits"
)

// doctorTime is the time limit of one call: a user waits for it.
const doctorTime = 15 * time.Second

// doctor collects the results of the checks.
type doctor struct {
	*call
	limit time.Duration // of one call
	list  []checklist.Check
}

func (d *doctor) add(name string, state checklist.State, hint, format string, args ...any) {
	d.list = append(d.list, checklist.Check{Name: name, State: state, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// skip adds results for checks that cannot run.
func (d *doctor) skip(why string, names ...string) {
	for _, name := range names {
		d.add(name, checklist.Skip, "", "not checked: %s", why)
	}
}

// bad adds a result for an error, with its hint.
func (d *doctor) bad(name string, state checklist.State, before string, err error) {
	d.add(name, state, hint.Of(err), "%s%v", before, err)
}

func runDoctor(ctx context.Context, v *call) error {
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	d := &doctor{call: v, limit: doctorTime}
	d.environment()
	if d.daemon(ctx) {
		d.job(ctx)
	} else {
		d.skip("the daemon does not answer", checkWorkflow, checkMount, checkDestinations, checkLimits)
	}
	if err := cli.Interrupted(ctx, ctx.Err()); err != nil {
		return err
	}
	if checklist.Failed(d.list) {
		v.Code = ExitFailed
	}
	if v.output == formatJSON {
		return checklist.JSON(v.Stdout, Name, d.list)
	}
	if v.quiet {
		d.list = slices.DeleteFunc(d.list, func(c checklist.Check) bool { return c.State == checklist.OK })
	}
	return checklist.Checks(v.Stdout, d.list)
}

// environment checks the variables and flags that select the job.
func (d *doctor) environment() {
	if d.workflow == "" {
		d.bad(checkEnvironment, checklist.Fail, "", noWorkflow)
		return
	}
	from := "DW_WORKFLOW_NAME"
	if d.Given("workflow") {
		from = "--workflow"
	}
	storage := "no DW_JOB_… or DW_PERSISTENT_… is set"
	if paths := d.storage(); len(paths) > 0 {
		var names []string
		for _, p := range paths {
			names = append(names, p.name)
		}
		storage = "storage " + strings.Join(names, ", ")
	}
	d.add(checkEnvironment, checklist.OK, "", "workflow %s (%s), namespace %s; %s", d.workflow, from, d.namespace, storage)
}

// storagePath is a variable with the path of storage.
type storagePath struct{ name, path string }

// storage returns the variables with paths of storage that the job has, sorted by name.
func (d *doctor) storage() (list []storagePath) {
	for _, kv := range d.Environ {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "DW_JOB_") && !strings.HasPrefix(name, "DW_PERSISTENT_") {
			continue
		}
		if path := d.Getenv(name); strings.HasPrefix(path, "/") {
			list = append(list, storagePath{name, path})
		}
	}
	slices.SortFunc(list, func(a, b storagePath) int { return cmp.Compare(a.name, b.name) })
	return slices.Compact(list)
}

const hintService = "ask the administrator to check the daemon on this node: systemctl status nnf-dm.socket nnf-dm.service"

// daemon checks the socket and the version of the daemon. It reports whether the daemon
// answers.
func (d *doctor) daemon(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	started := time.Now()
	daemon, err := d.client.Version(ctx)
	if connect := d.client.ConnectError(); connect != nil {
		d.socketFailed(connect)
		d.skip("the socket cannot be reached", checkVersion)
		return false
	}
	d.add(checkSocket, checklist.OK, "", "%s accepts connections", d.settings.socket)
	switch {
	case late(ctx, err):
		d.noAnswer(checkVersion, hintService, started)
		return false
	case err != nil:
		d.bad(checkVersion, checklist.Fail, "", err)
		return false
	case daemon.Version != version.Version:
		d.add(checkVersion, checklist.Warn, "if something does not work, ask the administrator to install the same release of both", "the daemon is %s, %s is %s", daemon.Version, Name, version.Version)
	default:
		d.add(checkVersion, checklist.OK, "", "the daemon and %s are %s", Name, version.Version)
	}
	return true
}

// socketFailed adds the reason why the socket cannot be reached.
func (d *doctor) socketFailed(err error) {
	socket := d.settings.socket
	st, serr := os.Stat(socket)
	bad := func(hint, format string, args ...any) {
		d.add(checkSocket, checklist.Fail, hint, "%s "+format, append([]any{socket}, args...)...)
	}
	switch {
	case errors.Is(serr, fs.ErrNotExist):
		bad("run the command on a compute node of the job, and check NNF_DM_SOCKET and --socket; a container needs the socket of the node; otherwise ask the administrator to start nnf-dm.socket", "does not exist")
	case errors.Is(serr, fs.ErrPermission):
		bad("ask the administrator for access to the directory", "cannot be accessed: permission denied for its directory")
	case serr == nil && st.Mode().Type() != fs.ModeSocket:
		bad("check NNF_DM_SOCKET and --socket", "is not a socket")
	case errors.Is(err, fs.ErrPermission):
		owner := ""
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			owner = fmt.Sprintf(", user %d, group %d", sys.Uid, sys.Gid)
		}
		bad("ask the administrator for access: socket.mode and socket.group of nnf-dm", "refuses you: permission denied; its mode is %04o%s", st.Mode().Perm(), owner)
	case errors.Is(err, syscall.ECONNREFUSED):
		bad(hintService, "exists, but no process listens on it")
	case errors.Is(err, syscall.EAGAIN):
		bad("try again later", "is overloaded: too many connections wait")
	default:
		bad(hintService, "cannot be reached: %v", err)
	}
}

// job checks the workflow and what the daemon reports about it.
func (d *doctor) job(ctx context.Context) {
	rest := []string{checkMount, checkDestinations, checkLimits}
	if d.workflow == "" {
		d.skip("no workflow", append([]string{checkWorkflow}, rest...)...)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	started := time.Now()
	is, err := d.client.Describe(ctx)
	switch {
	case errors.Is(err, client.ErrOldDaemon):
		d.add(checkWorkflow, checklist.Warn, "try a copy with --dry-run; to see more here, ask the administrator to upgrade nnf-dm", "not known: %v", err)
		d.skip("the daemon is too old", rest...)
		return
	case late(ctx, err):
		d.noAnswer(checkWorkflow, "the API server may be slow or away: try again later", started)
	case err != nil && kindOf(err) == client.Unreachable:
		d.bad(checkWorkflow, checklist.Fail, "not known: ", err)
	case err != nil:
		d.bad(checkWorkflow, checklist.Fail, "", err)
	}
	if err != nil {
		d.skip("the workflow cannot be used", rest...)
		return
	}
	state := fmt.Sprintf("%s/%s is in state %s with status %s", d.namespace, d.workflow, cmp.Or(is.State, "unknown"), cmp.Or(is.Status, "unknown"))
	if is.Err != nil {
		d.bad(checkWorkflow, checklist.Fail, state+": ", is.Err)
		d.skip("the workflow allows no copies now", checkMount)
	} else {
		d.add(checkWorkflow, checklist.OK, "", "%s", state)
		d.mounts(is)
	}
	d.destinations(is)
	d.limits(is.Limits)
}

// late reports whether a call has reached its time limit. The daemon has the same limit, and may
// cancel the call before ctx ends here.
func late(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return err != nil
	}
	deadline, limited := ctx.Deadline()
	kind := kindOf(err)
	return limited && time.Until(deadline) < time.Second && (kind == client.TimedOut || kind == client.Interrupted)
}

// noAnswer adds a result for a call without an answer.
func (d *doctor) noAnswer(check, next string, started time.Time) {
	d.add(check, checklist.Fail, next, "no answer within %v", time.Since(started).Round(100*time.Millisecond))
}

func kindOf(err error) client.Kind {
	if e := (*client.Error)(nil); errors.As(err, &e) {
		return e.Kind
	}
	return client.Failed
}

// mounts checks the storage of the workflow on this node.
func (d *doctor) mounts(is client.Description) {
	if is.StorageErr != nil {
		d.bad(checkMount, checklist.Fail, "not known: ", is.StorageErr)
		return
	}
	if len(is.Storage) == 0 {
		d.add(checkMount, checklist.Fail, "run the command on a compute node of the job; the job needs a #DW directive with type gfs2 or lustre", "the workflow has no storage on node %s", is.Node)
	}
	paths := d.storage()
	// A mount that cannot be copied is fine if the job has another one for its copies.
	unsupported := checklist.Fail
	if slices.ContainsFunc(is.Storage, func(s client.Storage) bool { return !s.Unsupported }) {
		unsupported = checklist.Warn
	}
	for _, s := range is.Storage {
		what := s.Path
		var names []string
		for _, p := range paths {
			if below(p.path, s.Path) {
				names = append(names, p.name)
			}
		}
		if len(names) > 0 {
			what += " (" + strings.Join(names, ", ") + ")"
		}
		switch {
		case s.Err == nil:
			d.add(checkMount, checklist.OK, "", "%s: %s, ready, can be copied", what, s.Type)
		case s.Unsupported && s.Ready:
			d.add(checkMount, unsupported, hint.Of(s.Err), "%s: %s, ready, but the rabbit cannot copy from this type of file system", what, s.Type)
		case !s.Ready:
			d.add(checkMount, checklist.Fail, "try again when the job has started on this node; if it does not become ready, ask the administrator to run clientmountd mounts on node "+is.Node, "%s: %s, not ready: %v", what, s.Type, s.Err)
		default:
			d.bad(checkMount, checklist.Fail, what+": "+s.Type+", ready, cannot be copied: ", s.Err)
		}
	}
	if is.StorageOmitted > 0 {
		d.add(checkMount, checklist.Skip, "", "%d more mounts are not shown", is.StorageOmitted)
		return
	}
	for _, p := range paths {
		if len(is.Storage) > 0 && !slices.ContainsFunc(is.Storage, func(s client.Storage) bool { return below(p.path, s.Path) }) {
			d.add(checkMount, checklist.Warn, "check that the variable and the workflow are those of the same job", "%s: %s is not on the storage of the workflow on this node", p.name, p.path)
		}
	}
}

// below reports whether a path is a directory or below it.
func below(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimRight(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

func (d *doctor) destinations(is client.Description) {
	switch more := ""; {
	case is.DestinationsErr != nil:
		d.bad(checkDestinations, checklist.Fail, "not known: ", is.DestinationsErr)
	case len(is.Destinations) == 0:
		d.add(checkDestinations, checklist.Fail, "ask the administrator to create a LustreFileSystem object for each global file system", "the cluster has no global Lustre file system to copy to")
	default:
		if is.DestinationsOmitted > 0 {
			more = fmt.Sprintf(" and %d more", is.DestinationsOmitted)
		}
		d.add(checkDestinations, checklist.OK, "", "copies can go to %s%s", strings.Join(is.Destinations, ", "), more)
	}
}

// limits checks whether the user can create more copies.
func (d *doctor) limits(l client.Limits) {
	state, next := checklist.OK, ""
	used := fmt.Sprintf("at most %d copies on this node, with %s", l.Movements, size(l.MovementBytes))
	if l.MovementsUsed != nil && l.MovementBytesUsed != nil {
		n, bytes := *l.MovementsUsed, *l.MovementBytesUsed
		used = fmt.Sprintf("%d of %d copies on this node, %s of %s", n, l.Movements, size(bytes), size(l.MovementBytes))
		switch {
		case n >= l.Movements || bytes >= l.MovementBytes:
			state = checklist.Fail
		case n >= l.Movements/10*9 || bytes >= l.MovementBytes/10*9:
			state = checklist.Warn
		}
	}
	if state != checklist.OK {
		next = "delete the records of copies that have ended: " + Name + " list, " + Name + " delete ID"
	}
	d.add(checkLimits, state, next, "%s; %d copies per second, %d in a burst, %d in one command; %d requests at a time, %d of them waiting, for at most %s; %s per request, %s of memory", used,
		l.CreatesPerSecond, l.CreateBurst, l.BatchSize, l.Streams, l.Waiters, cli.Duration(l.MaxWait.String()), size(l.MessageSize), size(l.Memory))
}

// size returns a number of bytes for people.
func size(bytes int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= unit.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(bytes)/float64(unit.size)), ".0") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d B", bytes)
}
